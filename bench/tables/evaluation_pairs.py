"""Pairs of evaluations in sentences: what is not paired, which questions, which test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgellm.bench.records.differences import counted
from edgellm.bench.records.evaluation import PAIRED
from edgellm.bench.statistics.resampling import CONFIDENCE
from edgellm.bench.tables.evaluation_runs import ComparedRun, setting_words
from edgellm.bench.tables.evaluation_tables import asked_noun, p_text
from edgellm.bench.tables.evaluation_values import score_words, value_text


def apart_sentences(
    runs: Sequence[ComparedRun], *, by: Literal["letter", "name"] = "letter"
) -> list[str]:
    """Return which runs are not compared with the first, why, and with which ones they are.

    Args:
        runs: of one task.
        by: how runs are told.
    """
    first, about, pairs = runs[0], dict[str, list[str]](), list[str]()
    own = {id(run.reference): getattr(run, by) for run in runs if run.is_reference}
    for run in runs:
        if run.reference is first.record:
            continue
        about.setdefault(_otherwise(first, run), []).append(getattr(run, by))
        if not run.is_reference:
            pairs.append(f"{getattr(run, by)} with {own[id(run.reference)]}")
    sentences = [
        f"not compared with {getattr(first, by)}, {reason}: {', '.join(names)}"
        for reason, names in about.items()
    ]
    if pairs:
        sentences.append(f"instead compared: {', '.join(pairs)}")
    return sentences


def common_sentence(run: ComparedRun) -> str:
    """Return over which questions two runs are compared, and what each scores there.

    Empty where both were asked the same ones: the scores in tables then differ by the difference.
    """
    found = run.paired
    if found is None or not found.only_first + found.only_second:
        return ""
    noun = asked_noun(run.record)
    alone = counted(found.only_first + found.only_second, noun)
    second, first = (value_text(found.metric, value) for value in (found.second, found.first))
    return (
        f"the difference is over the {counted(found.questions, noun)} that both runs were asked, "
        f"with {score_words(found.metric, second)}, and {first} of {run.first}; "
        f"{alone} that only one of both was asked left out"
    )


def chance_sentence(run: ComparedRun) -> str:
    """Return why no difference is seen although the interval leaves 0 out; empty otherwise."""
    found = run.paired
    if found is None or found.is_seen or found.low <= 0 <= found.high:
        return ""
    limit = f"{1 - CONFIDENCE:.2g}"
    if found.p < 1 - CONFIDENCE:
        why = f"corrected for all comparisons, p is {p_text(found.p_holm)}"
    elif found.p == found.mcnemar_p:
        why = (
            f"{found.better} better and {found.worse} worse may be chance, "
            f"by the exact test: p is {p_text(found.p)}"
        )
    else:
        differing = counted(found.better + found.worse, asked_noun(run.record))
        why = f"of {differing} with a difference p is {p_text(found.p)}"
    return f"the interval leaves 0 out, but {why}, not below {limit}"


def _otherwise(first: ComparedRun, run: ComparedRun) -> str:
    """Return how the first run of a task was asked otherwise than another one."""
    differing = [name for name in PAIRED if first.record.get(name) != run.record.get(name)]
    if not differing:
        return "which has other prompts"
    words = setting_words(first, differing)
    if not words:
        return "which was asked otherwise"
    return f"which was asked with {words}"
