"""Evaluations in sentences: what was seen, what so many questions can show, what was odd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Literal

from edgellm.bench.metrics.table import COUNTED, METRICS, counts
from edgellm.bench.records.differences import counted
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.statistics.paired import PairedResult
from edgellm.bench.statistics.resampling import Difference
from edgellm.bench.statistics.sample_size import in_unit, what_it_shows
from edgellm.bench.tables.evaluation_pairs import (
    apart_sentences,
    chance_sentence,
    common_sentence,
)
from edgellm.bench.tables.evaluation_runs import ComparedRun, standard_error_of
from edgellm.bench.tables.evaluation_tables import TEXT, asked_noun, score_text
from edgellm.bench.tables.evaluation_values import (
    change_texts,
    score_words,
    unit_of,
    value_text,
)

DIVERGENCE = "kl"
MOST_SENTENCES = 3
"""Of one kind about the runs of a task."""

SAME_OPTIONS = frozenset({"classify", "nli"})
"""Kinds of tasks whose questions all have the labels as their options."""

FEWEST = 10
"""Questions from which on it is odd that all got one answer."""


def verdict_sentence(run: ComparedRun) -> str:
    """Return how a run differs from its reference, in words; of the reference, its score.

    ``stories-4: no difference seen in 200 questions (-1.0 points, -3.0 to +1.0); the right answers
    are 0.23 nats less likely, which is beyond chance``.
    """
    if run.is_reference:
        score = score_words(run.headline, score_text(run))
        return f"{run.name}: {score}; others are compared with it"
    if run.refusal:
        return f"{run.name}: not compared: {run.refusal}"
    if run.paired is None:
        return f"{run.name}: the same answers as {run.first}"
    found = run.paired
    asked = counted(found.questions, asked_noun(run.record))
    change, low, high = change_texts(found.metric, found.difference, found.low, found.high)
    change = " ".join(filter(None, [change, unit_of(found.metric)]))
    said = f"{run.name}: {found.verdict} in {asked} ({change}, {low} to {high})"
    why = chance_sentence(run)
    if why:
        said += f"; {why}"
    return said + _likelihood(found) + _other_tokens(run)


def power_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return what could have gone unseen where no difference was seen: each, or the worst."""
    sentences: dict[str, list[str]] = {}
    for run in runs:
        if run.paired is not None and not run.paired.is_seen:
            sentences.setdefault(_power(run), []).append(run.letter)
    if len(sentences) > MOST_SENTENCES:
        return [f"at worst: {power_sentence(runs)}"]
    return [f"{', '.join(letters)}: {sentence}" for sentence, letters in sentences.items()]


def power_sentence(runs: Sequence[ComparedRun]) -> str:
    """Return what could have gone unseen at most; empty where every difference was seen."""
    unseen = [run for run in runs if run.paired is not None and not run.paired.is_seen]
    if not unseen:
        return ""
    return _power(max(unseen, key=lambda run: (run.paired and run.paired.standard_error) or 0.0))


def count_sentences(
    runs: Sequence[ComparedRun], *, by: Literal["letter", "name"] = "letter"
) -> list[str]:
    """Return what was cut, tied, unreadable, skipped or left out, each sentence once.

    Args:
        runs: of one task.
        by: how those are told that a sentence is about, where it is not about all.
    """
    about: dict[str, list[str]] = {}
    for run in runs:
        for sentence in _counted(run):
            about.setdefault(sentence, []).append(getattr(run, by))
    sentences = []
    for sentence, names in about.items():
        if len(names) == len(runs):
            sentences.append(sentence)
        else:
            sentences.append(f"{', '.join(names)}: {sentence}")
    return sentences


def task_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return what a reader of a task's table should know besides."""
    return [
        *apart_sentences(runs),
        *_said_of(runs, chance_sentence),
        *likelihood_sentences(runs),
        *divergence_sentences(runs),
        *power_sentences(runs),
        *count_sentences(runs),
    ]


def evaluation_lines(tasks: Mapping[str, Sequence[ComparedRun]], *, width: int) -> list[str]:
    """Return what readers of tables should know besides, in lines of a screen."""
    lines = []
    for task, runs in tasks.items():
        sentences = task_sentences(runs)
        if sentences and len(tasks) > 1:
            lines.append(f"{task}:")
        for sentence in sentences:
            lines += wrap(f"- {sentence}", width, subsequent_indent="  ")
    return lines


def likelihood_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return how much likelier right answers have become, where that is beyond chance."""
    changes: dict[str, list[str]] = {}
    for run in runs:
        if run.paired is None or run.paired.right_logprob is None:
            continue
        change = run.paired.right_logprob
        if change.is_seen:
            size = in_unit(abs(change.difference), "nats")
            changes.setdefault(_direction(change), []).append(f"{run.letter} by {size}")
    return [
        f"right answers are {direction} likely than the first run has them, beyond chance: "
        f"{', '.join(found)}"
        for direction, found in changes.items()
    ]


def divergence_sentences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return divergences with their standard errors, for which tables have no room."""
    found = []
    for run in runs:
        error = standard_error_of(run.record, DIVERGENCE)
        if error is not None:
            value = value_text(DIVERGENCE, METRICS[DIVERGENCE].of(run.record.columns))
            found.append(f"{run.letter} {value} ± {value_text(DIVERGENCE, error)}")
    if not found:
        return []
    return [f"KL from the first run, ± its standard error over texts, nats: {', '.join(found)}"]


def _likelihood(found: PairedResult) -> str:
    """Return the change in the right answers' log-likelihood, where options were scored."""
    change = found.right_logprob
    if change is None or not change.difference:
        return ""
    size = in_unit(abs(change.difference), "nats")
    sure = "may be chance"
    if change.is_seen:
        sure = "is beyond chance"
    return f"; the right answers are {size} {_direction(change)} likely, which {sure}"


def _other_tokens(run: ComparedRun) -> str:
    """Return how often a model reads another token as the likeliest than its reference."""
    agreed = run.record.metrics.get("top1")
    if agreed is None:
        return ""
    return f"; the likeliest token is another one in {100 * (1 - agreed):.1f} % of places"


def _direction(change: Difference) -> str:
    if change.difference < 0:
        return "less"
    return "more"


def _power(run: ComparedRun) -> str:
    found = run.paired
    if found is None:
        return ""
    sentence = what_it_shows(
        found.questions,
        found.standard_error,
        unit=METRICS[found.metric].unit,
        differing=found.better + found.worse,
        seen=found.is_seen,
    )
    if run.record.task_kind == TEXT:
        return sentence.replace("question", "text")
    return sentence


def _counted(run: ComparedRun) -> list[str]:
    record = run.record
    sentences = [
        f"{total:,} of {record.questions:,} {COUNTED[name]}"
        if name != "unparsed_lines"
        else f"{total:,} {COUNTED[name]}"
        for name, total in counts(record.columns).items()
    ]
    predicted = record.columns.get("predicted", ())
    if len(predicted) >= FEWEST and len(set(predicted)) == 1:
        sentences.append(
            f"every question got {_option(record, int(predicted[0]))} as its answer: "
            "the score is how often that one is right"
        )
    if record.skipped:
        rows = counted(record.skipped, "row")
        sentences.append(f"{rows} without a right answer left out")
    sentences += filter(None, [common_sentence(run)])
    if run.refusal:
        sentences.append(f"not compared: {run.refusal}")
    return sentences


def _said_of(runs: Sequence[ComparedRun], sentence: Callable[[ComparedRun], str]) -> list[str]:
    """Return a sentence about each run of which there is one to say."""
    return [f"{run.letter}: {sentence(run)}" for run in runs if sentence(run)]


def _option(record: EvaluationRecord, number: int) -> str:
    """Return an option in words: the label, where all questions have the same, else its number."""
    if record.task_kind in SAME_OPTIONS and number < len(record.first_options):
        return f"\u201c{record.first_options[number].strip()}\u201d"
    return f"option {number + 1}"
