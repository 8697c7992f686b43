"""A metric: a formula over the sums of columns."""

# N questions, C columns, S statistics

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgellm.errors import ConfigError, NotFiniteError

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Sequence[float] | Floats]
Unit = Literal["share", "score", "nats", "bits/byte", "perplexity", "words", "tokens", "1-10"]
"""A share is of 1 and is shown in per cent; a score is of 100."""

Formula = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of many answers: a formula over sums of their columns.

    Attributes:
        name: in records and options.
        title: in tables.
        definition: one line for readers.
        columns: that it is made of.
        formula: from sums of statistics (..., S) to values (...); NaN where it has none.
        expand: from columns (N, C) to statistics (N, S); default: a column of ones before them.
        unit: of its values.
        higher_is_better: None where neither is.
        where: a column without which, or where it is 0 throughout, the metric says nothing new.
    """

    name: str
    title: str
    definition: str
    columns: tuple[str, ...]
    formula: Formula
    expand: Formula | None = None
    unit: Unit = "share"
    higher_is_better: bool | None = True
    where: str | None = None

    def is_defined(self, columns: Columns) -> bool:
        """Say whether the columns are there and the metric has a value that says something."""
        if not all(name in columns for name in self.columns):
            return False
        if self.where is not None and not np.any(columns.get(self.where, ())):
            return False
        rows = self.rows(columns)
        return len(rows) > 0 and bool(np.isfinite(self._of_rows(rows)))

    def of(self, columns: Columns) -> float:
        """Return the value over all questions.

        Raises:
            ConfigError: a column is missing, or there is no question.
            NotFiniteError: a column holds NaN or infinity, or the metric has no finite value.
        """
        rows = self.rows(columns)
        if not len(rows):
            raise ConfigError(f"{self.name} of no question has no value", hint="ask one at least")
        value = self._of_rows(rows)
        if not np.isfinite(value):
            raise NotFiniteError(
                f"{self.name} has no finite value for these questions: it is {value}",
                hint=f"it is defined as: {self.definition}",
            )
        return value

    def of_sums(self, sums: Floats) -> Floats:
        """Return the values (...) of sums of statistics (..., S); NaN where there is none."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.formula(sums)

    def statistics(self, columns: Columns) -> Floats:
        """Return what is added up (N, S): of a resample, only the sums matter."""
        return self.statistics_of_rows(self.rows(columns))

    def statistics_of_rows(self, rows: Floats) -> Floats:
        """Return what is added up (N, S), from the metric's own columns (N, C)."""
        if self.expand is not None:
            return self.expand(rows)
        return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)

    def rows(self, columns: Columns) -> Floats:
        """Return the metric's own columns (N, C).

        Raises:
            ConfigError: a column is missing, or they differ in length.
            NotFiniteError: one holds NaN or infinity.
        """
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise ConfigError(
                f"{self.name} needs the column {missing[0]}, which this run does not have",
                hint=f"it has {', '.join(columns) or 'none'}",
            )
        taken = [np.asarray(columns[name], dtype=np.float64) for name in self.columns]
        if len({len(column) for column in taken}) > 1:
            raise ConfigError(
                f"the columns of {self.name} differ in length", hint="run the evaluation again"
            )
        rows = np.stack(taken, axis=1)
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            question, column = bad[0]
            raise NotFiniteError(
                f"{self.columns[column]} of question {question + 1} is {rows[question, column]}",
                hint="edgellm verify says whether the weights are whole",
            )
        return rows

    def _of_rows(self, rows: Floats) -> float:
        return float(self.of_sums(self.statistics_of_rows(rows).sum(axis=0)))
