"""Resamples of questions: the paired bootstrap, and standard errors by the jackknife."""

# N questions, D different rows among them, C documents, R resamples, S statistics

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.bench.metrics.metric import Columns, Floats, Metric
from edgellm.errors import ConfigError

RESAMPLES = 10_000
CONFIDENCE = 0.95
BLOCK = 1 << 22
"""Numbers held at once: 32 MiB of float64."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two runs over the same questions, the second less the first.

    Attributes:
        first: value of the first run.
        second: of the second.
        low: lower end of the 95 % interval of the difference, by percentiles.
        high: upper end.
        standard_error: of the difference; None of a single document.
        p: two-sided, from the share of resamples beyond 0.
    """

    first: float
    second: float
    low: float
    high: float
    standard_error: float | None
    p: float

    @property
    def difference(self) -> float:
        """Return the second value less the first."""
        return self.second - self.first

    @property
    def is_seen(self) -> bool:
        """Whether p is below 5 % and the interval leaves 0 out."""
        return is_beyond_chance(self.p, self.low, self.high)


def is_beyond_chance(p: float, low: float, high: float) -> bool:
    """Return whether a p-value is below 5 % and the interval leaves 0 out."""
    return p < 1 - CONFIDENCE and not low <= 0 <= high


def paired_bootstrap(
    metric: Metric,
    first: Columns,
    second: Columns,
    *,
    documents: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare a metric of two runs over resamples of the same questions.

    Documents are drawn with replacement, each with all of its questions, as many as there are;
    both runs get the same ones. The p-value is twice the smaller share of resamples on one side
    of 0 (those at 0 are on both), no less than 2 / 2^d for d documents that differ: no test of
    signs can say more.

    Args:
        metric: to compare.
        first: columns of the first run.
        second: columns of the second, in the same order of questions.
        documents: of each question; default: each is its own.
        resamples: how many.
        seed: of the draws; equal seeds give equal intervals.

    Raises:
        ConfigError: a column is missing, no question is there, or the columns do not fit.
        NotFiniteError: a column or a value is not finite.
    """
    values = metric.of(first), metric.of(second)
    sample = _Sample(np.concatenate([metric.rows(first), metric.rows(second)], axis=1), documents)
    split = len(metric.columns)
    statistics = [
        metric.statistics_of_rows(sample.rows[:, :split]),
        metric.statistics_of_rows(sample.rows[:, split:]),
    ]
    parts = []
    for weights in sample.draws(resamples, np.random.default_rng(seed)):
        one, two = (metric.of_sums(weights @ side) for side in statistics)
        with np.errstate(invalid="ignore"):
            parts.append(two - one)
    differences = np.concatenate(parts)
    # a resample may hold nothing that a metric is about, such as no question without an answer
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        raise ConfigError(f"{metric.name} has no value in any resample", hint="ask more questions")
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    sides = ((differences <= 0).sum() + 1, (differences >= 0).sum() + 1)
    p = 2 * min(sides) / (len(differences) + 1)
    return Difference(
        *values,
        low=float(low),
        high=float(high),
        standard_error=_jackknife(metric, sample, statistics),
        p=float(min(1.0, max(p, 2.0 ** (1 - min(sample.differing(split), 1000))))),
    )


def standard_error(
    metric: Metric, columns: Columns, documents: Sequence[Hashable] | None = None
) -> float | None:
    """Return the standard error of a metric of one run, by leaving out each document in turn.

    Of a mean over questions that are their own documents, it is the usual one: the standard
    deviation over the root of N.

    Args:
        metric: of whose value.
        columns: of the run.
        documents: of each question; default: each is its own.

    Returns:
        None of a single document, or where a value is undefined without some document.
    """
    sample = _Sample(metric.rows(columns), documents)
    return _jackknife(metric, sample, [metric.statistics_of_rows(sample.rows)])


class _Sample:
    """Questions as rows that occur so often, and as documents.

    Few rows differ where columns are 0 or 1, so that sums over many questions are sums over few
    rows; a draw of questions that are their own documents is then one multinomial draw of rows.

    Attributes:
        rows: (D, columns), each once.
        row_of: (N,) the row of each question.
        document_of: (N,) the document of each question.
        documents: how many.
    """

    def __init__(self, columns: Floats, documents: Sequence[Hashable] | None) -> None:
        self.rows, row_of = np.unique(columns, axis=0, return_inverse=True)
        self.row_of: Integers = row_of.reshape(-1)
        questions = len(columns)
        if documents is None:
            self.document_of = np.arange(questions)
            self.documents = questions
            return
        if len(documents) != questions:
            raise ConfigError(
                f"{len(documents)} documents are named for {questions} questions",
                hint="name one for each question",
            )
        numbers: dict[Hashable, int] = {}
        self.document_of = np.array(
            [numbers.setdefault(name, len(numbers)) for name in documents], dtype=np.int64
        )
        self.documents = len(numbers)

    def differing(self, split: int) -> int:
        """Return how many documents have a question whose two halves of columns differ."""
        differs = (self.rows[:, :split] != self.rows[:, split:]).any(axis=1)
        return len(np.unique(self.document_of[differs[self.row_of]]))

    def draws(self, resamples: int, random: np.random.Generator) -> Iterator[Floats]:
        """Yield how often each row is in each resample (R, D), in blocks of resamples."""
        questions, different = len(self.row_of), len(self.rows)
        alone = self.documents == questions
        few = alone and different * 4 <= questions
        step = max(1, BLOCK // max(questions, different))
        for begin in range(0, resamples, step):
            count = min(step, resamples - begin)
            if few:
                shares = np.bincount(self.row_of, minlength=different) / questions
                yield random.multinomial(questions, shares, size=count).astype(np.float64)
                continue
            drawn = random.integers(self.documents, size=(count, self.documents))
            if alone:
                yield _counts(self.row_of[drawn], different)
                continue
            often = _counts(drawn, self.documents)
            yield np.stack(
                [
                    np.bincount(self.row_of, weights=line[self.document_of], minlength=different)
                    for line in often
                ]
            )


def _counts(drawn: Integers, numbers: int) -> Floats:
    """Return how often each number is in each line of draws (R, numbers)."""
    lines = len(drawn)
    places = drawn + numbers * np.arange(lines)[:, None]
    counts = np.bincount(places.ravel(), minlength=lines * numbers)
    return counts.reshape(lines, numbers).astype(np.float64)


def _jackknife(metric: Metric, sample: _Sample, sides: Sequence[Floats]) -> float | None:
    """Return the standard error of the value of one run, or of the difference of two."""
    documents = sample.documents
    if documents < 2:
        return None
    order = np.argsort(sample.document_of, kind="stable")
    begins = np.searchsorted(sample.document_of[order], np.arange(documents + 1))
    often = np.bincount(sample.row_of, minlength=len(sample.rows))
    totals = [often @ side for side in sides]
    width = max(side.shape[1] for side in sides)
    step = max(1, BLOCK // width)
    without = []
    for first in range(0, documents, step):
        last = min(first + step, documents)
        questions = order[begins[first] : begins[last]]
        starts = begins[first:last] - begins[first]
        values = [
            metric.of_sums(total - np.add.reduceat(side[sample.row_of[questions]], starts, axis=0))
            for total, side in zip(totals, sides, strict=True)
        ]
        if len(values) == 1:
            without += values
        else:
            with np.errstate(invalid="ignore"):
                without.append(values[1] - values[0])
    left = np.concatenate(without)
    if not np.isfinite(left).all():
        return None
    return float(np.sqrt((documents - 1) / documents * ((left - left.mean()) ** 2).sum()))
