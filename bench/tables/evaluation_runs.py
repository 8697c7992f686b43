"""Evaluations beside each other: each run with the first one that was asked the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from string import ascii_letters
from typing import Any

import numpy as np

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records import differences
from edgellm.bench.records.differences import short_model
from edgellm.bench.records.evaluation import PAIRED, EvaluationRecord
from edgellm.bench.records.record import Record
from edgellm.bench.statistics.paired import PairedResult, compare_runs, corrected
from edgellm.bench.statistics.resampling import standard_error
from edgellm.bench.tables.evaluation_values import is_better
from edgellm.errors import EdgeLLMError

_WORDS: Mapping[str, Callable[[Any], str]] = {
    **differences.SETTINGS,
    "chat": lambda value: "chat" if value else "no chat",
    "seed": lambda value: f"seed {value}",
    "arithmetic": str,
}
SETTINGS: Mapping[str, Callable[[Any], str]] = {
    name: _WORDS[name]
    for name in (
        *("bits", "kv_bits", "memory_bytes", "shots", "shot_seed", "decoding", "chat", "seed"),
        *("arithmetic", "threads", "cluster", "backend", "device"),
    )
}
"""Settings that tell runs of one task apart besides the model, and how each is put in words."""

COSTS = frozenset({"threads", "cluster", "device"})
"""Settings that change what a run costs, and hardly what it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run of an evaluation, and how it differs from its reference.

    Attributes:
        record: the run.
        reference: the first run that was asked the same; the run itself where it is that one.
        model: the name of the model, without folders where that leaves models apart.
        letter: names the run in tables and pictures of its task.
        name: the model and what else tells the run apart from the task's others.
        first: the reference's model.
        paired: the comparison with the reference; None of the reference, of one with the very
            same answers, and where none can be made.
        refusal: why none can be made.
        standard_error: of its score alone.
    """

    record: EvaluationRecord
    reference: EvaluationRecord
    model: str = ""
    letter: str = "?"
    name: str = ""
    first: str = ""
    paired: PairedResult | None = None
    refusal: str | None = None
    standard_error: float | None = None

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it."""
        return self.record is self.reference

    @property
    def headline(self) -> str:
        """The name of the metric that is compared."""
        return self.record.headline

    @property
    def score(self) -> float:
        """The value of that metric."""
        return self.record.metrics[self.headline]

    @property
    def size(self) -> int | None:
        """Bytes of weights in memory: the budget's where that is smaller."""
        sizes = [size for size in (self.record.model_bytes, self.record.memory_bytes) if size]
        return min(sizes, default=None)


def compared_runs(records: Iterable[Record]) -> dict[str, list[ComparedRun]]:
    """Return the evaluations that have a score, by their tasks, each with its reference.

    Comparisons that were made together are corrected together; runs with the very same answers,
    such as those on other numbers of threads, are one comparison.
    """
    tasks: dict[str, list[EvaluationRecord]] = defaultdict(list)
    for record in records:
        if isinstance(record, EvaluationRecord) and not record.error and record.score is not None:
            tasks[record.task].append(_by_columns(record))
    models = _short_names({record.model for runs in tasks.values() for record in runs})
    return {task: _compared(runs, models) for task, runs in tasks.items()}


def distinct_runs(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Return one run of each way to answer: of those that differ in costs alone, the fastest.

    Only runs count that were asked as the first one was, so that all scores can be compared. What
    differs in costs is left out of their names.
    """
    best: dict[tuple[Any, ...], ComparedRun] = {}
    for run in runs:
        if run.reference is not runs[0].reference:
            continue
        names = [name for name in SETTINGS if name not in COSTS]
        key = (run.model, *(run.record.get(name) for name in names))
        before = best.get(key, run)
        is_faster = (run.record.tokens_per_second or 0) > (before.record.tokens_per_second or 0)
        if before is run or (is_faster and not before.is_reference):
            best[key] = run
    return _named(list(best.values()), besides=COSTS)


def sized_runs(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Return the runs whose size is known; none where all are of one size."""
    sized = [run for run in runs if run.size]
    if len({run.size for run in sized}) < 2:
        return []
    return sized


def frontier(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """Return the runs that no other one beats in score without being larger, or in size alone."""
    return [run for run in runs if not any(_beats(other, run) for other in runs)]


def differing_settings(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the settings that are not the same in all of these runs."""
    return [name for name in SETTINGS if len({str(run.record.get(name)) for run in runs}) > 1]


def standard_error_of(record: EvaluationRecord, name: str) -> float | None:
    """Return the standard error of a metric of a run; None where it has none."""
    metric = METRICS.get(name)
    if metric is None:
        return None
    try:
        with np.errstate(all="ignore"):
            return standard_error(metric, record.columns, record.documents)
    except EdgeLLMError:
        return None


def telling_settings(runs: Sequence[ComparedRun], besides: Iterable[str] = ()) -> list[str]:
    """Return the settings besides some by which runs can be told apart.

    Bits are left out where each model has its own.
    """
    left_out = set(besides)
    if len({(run.model, run.record.bits) for run in runs}) == len({run.model for run in runs}):
        left_out.add("bits")
    return [name for name in differing_settings(runs) if name not in left_out]


def words_of(run: ComparedRun, names: Iterable[str]) -> str:
    """Return a run's model and some of its settings in words."""
    return ", ".join(filter(None, [run.model, setting_words(run, names)]))


def setting_words(run: ComparedRun, names: Iterable[str]) -> str:
    """Return some of a run's settings in words."""
    values = {name: run.record.get(name) for name in names}
    return ", ".join(SETTINGS[name](value) for name, value in values.items() if value is not None)


def _by_columns(record: EvaluationRecord) -> EvaluationRecord:
    """Return a record with the metrics that follow from its columns; itself where it has them."""
    computed = record.contradicted
    if not computed:
        return record
    return replace(record, metrics={**record.metrics, **computed})


def _compared(records: Sequence[EvaluationRecord], models: Mapping[str, str]) -> list[ComparedRun]:
    groups: dict[tuple[Any, ...], list[EvaluationRecord]] = defaultdict(list)
    for record in records:
        groups[tuple(record.get(name) for name in PAIRED)].append(record)
    runs = {
        id(run.record): run
        for group in groups.values()
        for part in _asked_alike(group)
        for run in _with_first(*part)
    }
    ordered = [
        replace(run, model=models[run.record.model], first=models[run.reference.model])
        for run in (runs[id(record)] for record in records)
    ]
    named = _named(ordered)
    return [replace(run, letter=_letter(number)) for number, run in enumerate(named)]


def _named(runs: Sequence[ComparedRun], besides: Iterable[str] = ()) -> list[ComparedRun]:
    names = telling_settings(runs, besides)
    return [replace(run, name=words_of(run, names)) for run in runs]


def _asked_alike(
    records: Sequence[EvaluationRecord],
) -> list[tuple[EvaluationRecord, list[EvaluationRecord]]]:
    """Return each reference with those that are compared with it.

    One that no other run was asked like is tried with the first: they may share questions.
    """
    by_prompts: dict[str | None, list[EvaluationRecord]] = defaultdict(list)
    for record in records:
        by_prompts[record.prompt_hash].append(record)
    first, *others = by_prompts.values()
    alone = [group[0] for group in others if len(group) == 1]
    several = [group for group in others if len(group) > 1]
    return [(first[0], [*first[1:], *alone]), *((group[0], group[1:]) for group in several)]


def _with_first(
    reference: EvaluationRecord, others: Sequence[EvaluationRecord]
) -> list[ComparedRun]:
    """Return the reference and the others, each compared with it."""
    # what cannot be compared must not keep the rest from it, and no answer is compared twice
    first = _Identity(reference)
    refusals = {id(other): _refusal(first, _Identity(other)) for other in others}
    different: dict[Any, EvaluationRecord] = {}
    for other in others:
        if refusals[id(other)] is None and _answers(other) != _answers(reference):
            different.setdefault(_answers(other), other)
    results = corrected([_result(first, _Identity(other)) for other in different.values()])
    found = dict(zip(different, results, strict=True))
    return [
        ComparedRun(
            record=record,
            reference=reference,
            paired=found.get(_answers(record)),
            refusal=refusals.get(id(record)),
            standard_error=standard_error_of(record, record.headline),
        )
        for record in (reference, *others)
    ]


class _Identity:
    """A record as a key: equal to itself alone. Its numbers would take long to compare."""

    def __init__(self, record: EvaluationRecord) -> None:
        self.record = record

    def __eq__(self, other: object) -> bool:
        """Return whether both stand for one object."""
        return isinstance(other, _Identity) and self.record is other.record

    def __hash__(self) -> int:
        """Return the object's address, which stays its own while this holds it."""
        return id(self.record)


@lru_cache(maxsize=256)
def _result(reference: _Identity, other: _Identity) -> PairedResult:
    """Return a comparison, which is made once: a page is written again with each new record."""
    with np.errstate(all="ignore"):
        [result] = compare_runs(reference.record, [other.record])
    return result


def _answers(record: EvaluationRecord) -> tuple[Any, ...]:
    return (record.question_ids, *sorted(record.columns.items()))


@lru_cache(maxsize=256)
def _refusal(reference: _Identity, other: _Identity) -> str | None:
    """Return why two runs cannot be compared; None where they can."""
    try:
        with np.errstate(all="ignore"):
            compare_runs(reference.record, [other.record], resamples=1)
    except EdgeLLMError as error:
        return error.message
    return None


def _beats(one: ComparedRun, other: ComparedRun) -> bool:
    if one.size is None or other.size is None:
        return False
    better = is_better(one.headline, one.score, other.score)
    worse = is_better(one.headline, other.score, one.score)
    smaller, larger = one.size < other.size, one.size > other.size
    return (better and not larger) or (smaller and not worse)


def _letter(number: int) -> str:
    if number < len(ascii_letters):
        # capitals first
        return ascii_letters.swapcase()[number]
    return "?"


def _short_names(models: Iterable[str]) -> dict[str, str]:
    """Return models by their names without folders, where these tell them apart too."""
    names = {model: short_model(model) for model in models}
    if len(set(names.values())) < len(names):
        return {model: model for model in names}
    return names
