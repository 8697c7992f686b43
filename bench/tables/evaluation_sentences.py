"""Evaluations in sentences: what was seen, what so many questions can show, what was odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

from edgellm.bench.metrics.table import COUNTED, METRICS, counts
from edgellm.bench.records.differences import counted
from edgellm.bench.statistics.paired import PairedResult
from edgellm.bench.statistics.resampling import CONFIDENCE
from edgellm.bench.statistics.sample_size import in_unit, what_it_shows
from edgellm.bench.tables.evaluation_runs import ComparedRun
from edgellm.bench.tables.evaluation_values import (
    change_text,
    title_of,
    unit_of,
    value_text,
)

CHANCE = 1 - CONFIDENCE


def verdict_sentence(run: ComparedRun) -> str:
    """Return how a run differs from its reference, in words; of the reference, its score.

    ``stories-4: no difference seen in 200 questions (-1.0 points, -3.0 to +1.0); the right answers
    are 0.23 nats less likely, which is beyond chance``.
    """
    if run.is_reference:
        sure = ""
        if run.standard_error is not None:
            sure = f" ± {value_text(run.headline, run.standard_error)}"
        score = f"{title_of(run.headline)}: {value_text(run.headline, run.score or 0.0)}{sure}"
        return f"{run.name}, with which others are compared: {score}"
    if run.refusal:
        return f"{run.name}: not compared: {run.refusal}"
    if run.paired is None:
        return f"{run.name}: the same answers as {run.first}"
    found = run.paired
    asked = counted(found.questions, "text" if run.record.task_kind == "text" else "question")
    change = " ".join(
        filter(None, [change_text(found.metric, found.difference), unit_of(found.metric)])
    )
    low, high = change_text(found.metric, found.low), change_text(found.metric, found.high)
    said = f"{run.name}: {found.verdict} in {asked} ({change}, {low} to {high})"
    return said + _likelihood(found)


def power_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return what so many questions can show of each comparison, each sentence once."""
    sentences: dict[str, list[str]] = {}
    for run in runs:
        if run.paired is not None:
            sentences.setdefault(_power(run.paired), []).append(run.letter)
    return [f"{', '.join(letters)}: {sentence}" for sentence, letters in sentences.items()]


def power_sentence(runs: Sequence[ComparedRun]) -> str:
    """Return what so many questions can show where none was seen; empty where all were seen."""
    errors = {
        run.paired.standard_error or 0.0: run.paired
        for run in runs
        if run.paired is not None and run.paired.verdict == "no difference seen"
    }
    if not errors:
        return ""
    return _power(errors[max(errors)])


def count_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return what was cut, tied, unreadable, skipped or left out, each sentence once."""
    sentences: dict[str, list[str]] = {}
    for run in runs:
        for sentence in _counted(run):
            sentences.setdefault(sentence, []).append(run.letter)
    everyone = len(runs)
    return [
        sentence if len(letters) == everyone else f"{', '.join(letters)}: {sentence}"
        for sentence, letters in sentences.items()
    ]


def evaluation_sentences(tasks: Mapping[str, Sequence[ComparedRun]]) -> list[str]:
    """Return what a reader of the tables should know besides, each under its task's name."""
    return [
        f"{task}: {sentence}"
        for task, runs in tasks.items()
        for sentence in (
            *likelihood_sentences(runs),
            *power_sentences(runs),
            *count_sentences(runs),
        )
    ]


def evaluation_lines(tasks: Mapping[str, Sequence[ComparedRun]], *, width: int) -> list[str]:
    """Return the same in lines of a screen."""
    return [
        line
        for sentence in evaluation_sentences(tasks)
        for line in wrap(sentence, width, subsequent_indent="  ")
    ]


def likelihood_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the changes in the right answers' likelihood that are beyond chance."""
    return [
        f"{run.letter}:{_likelihood(run.paired).removeprefix(';')}"
        for run in runs
        if run.paired is not None and "beyond" in _likelihood(run.paired)
    ]


def _likelihood(found: PairedResult) -> str:
    """Return the change in the right answers' log-likelihood, where options were scored."""
    change = found.right_logprob
    if change is None or not change.difference:
        return ""
    direction = "less" if change.difference < 0 else "more"
    size = in_unit(abs(change.difference), "nats")
    beyond = change.p < CHANCE and not change.low <= 0 <= change.high
    sure = "which is beyond chance" if beyond else "which may be chance"
    return f"; the right answers are {size} {direction} likely, {sure}"


def _power(found: PairedResult) -> str:
    return what_it_shows(
        found.questions,
        found.standard_error,
        unit=METRICS[found.metric].unit,
        differing=found.better + found.worse,
        seen=found.verdict != "no difference seen",
    )


def _counted(run: ComparedRun) -> list[str]:
    record, found = run.record, run.paired
    sentences = [
        f"{total:,} of {record.questions:,} {COUNTED[name]}"
        if name != "unparsed_lines"
        else f"{total:,} {COUNTED[name]}"
        for name, total in counts(record.columns).items()
    ]
    if record.skipped:
        rows = counted(record.skipped, "row")
        sentences.append(f"{rows} without a right answer left out")
    if found is not None and found.only_first + found.only_second:
        alone = counted(found.only_first + found.only_second, "question")
        sentences.append(f"{alone} that only one of both runs was asked left out")
    if run.refusal:
        sentences.append(f"not compared: {run.refusal}")
    return sentences
