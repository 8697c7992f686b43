"""Compare runs over the questions that both were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from edgellm.bench.metrics.metric import Columns, Floats, Metric
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.statistics.resampling import (
    RESAMPLES,
    Difference,
    is_beyond_chance,
    paired_bootstrap,
)
from edgellm.bench.statistics.significance import holm, mcnemar
from edgellm.errors import ConfigError

Verdict = Literal["no difference seen", "worse", "better", "different"]
"""Different are runs by a metric of which neither more nor less is better, such as length."""

RIGHT_LOGPROB = "right_logprob"


class Run(Protocol):
    """A model's answers to questions, as an ``EvaluationRecord`` has them."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def headline(self) -> str:
        """Name of the metric that is compared by default."""

    @property
    def question_ids(self) -> Sequence[str]:
        """One a question."""

    @property
    def question_hashes(self) -> Sequence[str]:
        """Of the texts of each question; empty where nobody knows."""

    @property
    def documents(self) -> Sequence[str]:
        """The document of each question; empty where each is its own."""

    @property
    def columns(self) -> Mapping[str, Sequence[float]]:
        """Numbers of each question, by name."""

    @property
    def prompt_hash(self) -> str | None:
        """Of all that the prompts have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """The second of two runs compared with the first.

    Attributes:
        metric: its name.
        questions: that both were asked.
        only_first: questions that only the first was asked, in this wording: they are left out.
        only_second: that only the second was asked.
        documents: that the questions are about.
        first: value of the first run over the common questions.
        second: of the second.
        difference: the second less the first.
        low: lower end of its 95 % interval (paired bootstrap).
        high: upper end.
        standard_error: of the difference; None of a single document.
        better: questions that the second does better.
        worse: questions that the first does better.
        mcnemar_p: exact; None where questions count for more than 0 or 1.
        p: McNemar's where there is one and each question is its own document, else the
            bootstrap's.
        p_holm: corrected for all comparisons that were made together.
        right_logprob: change of the right option's log-likelihood, where options were scored.
    """

    metric: str
    questions: int
    only_first: int
    only_second: int
    documents: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    standard_error: float | None
    better: int
    worse: int
    mcnemar_p: float | None
    p: float
    p_holm: float
    right_logprob: Difference | None

    @property
    def is_seen(self) -> bool:
        """Whether p_holm is below 5 % and the interval leaves 0 out."""
        return is_beyond_chance(self.p_holm, self.low, self.high)

    @property
    def verdict(self) -> Verdict:
        """How the second run compares with the first, in a word or a few."""
        higher_is_better = METRICS[self.metric].higher_is_better
        if not self.is_seen:
            return "no difference seen"
        if higher_is_better is None:
            return "different"
        if (self.difference > 0) == higher_is_better:
            return "better"
        return "worse"


def compare_runs(
    first: Run,
    others: Sequence[Run],
    *,
    metric: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[PairedResult]:
    """Compare each of several runs with the first; Holm's correction is over all of them.

    Args:
        first: the reference.
        others: compared with it.
        metric: name; default: the first run's headline.
        resamples: of the bootstrap.
        seed: of its draws.

    Raises:
        ConfigError: the runs are of different tasks, were asked differently, share no question,
            or the metric is unknown.
        NotFiniteError: a column or a value is not finite.
    """
    name = metric or first.headline
    if name not in METRICS:
        raise ConfigError(
            f"there is no metric {name!r}", hint=f"there are {', '.join(sorted(METRICS))}"
        )
    return corrected(
        [_compared(METRICS[name], first, other, resamples=resamples, seed=seed) for other in others]
    )


def corrected(results: Sequence[PairedResult]) -> list[PairedResult]:
    """Return comparisons that are made together with Holm's correction over all of them."""
    values = holm([result.p for result in results])
    return [replace(result, p_holm=p) for result, p in zip(results, values, strict=True)]


def _compared(
    metric: Metric, first: Run, second: Run, *, resamples: int, seed: int
) -> PairedResult:
    """Return two runs over their common questions, as the only comparison that is made."""
    places = _common_questions(first, second)
    questions = len(places[0])
    columns = _taken(first, places[0]), _taken(second, places[1])
    named = first.documents or first.question_ids
    documents = [named[place] for place in places[0]]

    def bootstrap(metric: Metric) -> Difference:
        return paired_bootstrap(
            metric, *columns, documents=documents, resamples=resamples, seed=seed
        )

    found = bootstrap(metric)
    right_logprob: Difference | None = None
    if all(RIGHT_LOGPROB in side for side in columns):
        right_logprob = bootstrap(METRICS[RIGHT_LOGPROB])
    with np.errstate(invalid="ignore"):
        change = _each(metric, columns[1]) - _each(metric, columns[0])
    if metric.higher_is_better is False:
        change = -change
    # a question without a value, such as one with an answer for a metric of those without
    change = np.nan_to_num(change)
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    p, mcnemar_p = found.p, None
    if all(_is_right_or_wrong(metric, side) for side in columns):
        mcnemar_p = mcnemar(better, worse)
        if len(set(documents)) == questions:
            p = mcnemar_p
    return PairedResult(
        metric=metric.name,
        questions=questions,
        only_first=len(first.question_ids) - questions,
        only_second=len(second.question_ids) - questions,
        documents=len(set(documents)),
        first=found.first,
        second=found.second,
        difference=found.difference,
        low=found.low,
        high=found.high,
        standard_error=found.standard_error,
        better=better,
        worse=worse,
        mcnemar_p=mcnemar_p,
        p=p,
        p_holm=p,
        right_logprob=right_logprob,
    )


def _common_questions(first: Run, second: Run) -> tuple[list[int], list[int]]:
    """Return the places of the common questions in both runs, in the order of the first.

    A question with another text is another one, whatever its id.

    Raises:
        ConfigError: there is none, or the runs were asked differently.
    """
    if first.task != second.task:
        raise ConfigError(
            f"one run is of the task {first.task!r}, the other of {second.task!r}",
            hint="compare runs of one task",
        )
    if first.prompt_hash != second.prompt_hash:
        raise ConfigError(
            f"these runs of {first.task!r} asked with different prompts",
            hint="compare runs with one prompt, one set of examples and one chat template",
        )
    have_hashes = bool(first.question_hashes and second.question_hashes)
    places = [_places(run, have_hashes=have_hashes) for run in (first, second)]
    common = [question for question in places[0] if question in places[1]]
    if not common:
        raise ConfigError(
            f"these runs of {first.task!r} share no question",
            hint="compare runs of one file of questions, which did not change between them",
        )
    first_places, second_places = ([side[question] for question in common] for side in places)
    return first_places, second_places


def _places(run: Run, *, have_hashes: bool) -> dict[tuple[str, ...], int]:
    """Return the place of each question of a run.

    Raises:
        ConfigError: a question occurs twice.
    """
    names = [run.question_ids]
    if have_hashes:
        names.append(run.question_hashes)
    places = {question: place for place, question in enumerate(zip(*names, strict=True))}
    if len(places) < len(run.question_ids):
        raise ConfigError(
            f"a question occurs twice in a run of {run.task!r}", hint="give each row its own id"
        )
    return places


def _taken(run: Run, places: Sequence[int]) -> Columns:
    """Return a run's columns of some questions, in their order."""
    return {
        name: np.asarray(column, dtype=np.float64)[places] for name, column in run.columns.items()
    }


def _each(metric: Metric, columns: Columns) -> Floats:
    """Return the metric's value of each question alone (N,)."""
    return metric.of_sums(metric.statistics(columns))


def _is_right_or_wrong(metric: Metric, columns: Columns) -> bool:
    """Say whether a metric is the share of questions that are right."""
    if len(metric.columns) != 1 or metric.unit != "share":
        return False
    return bool(np.isin(metric.rows(columns), (0.0, 1.0)).all())
