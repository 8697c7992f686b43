"""Outcomes: from a worker's message to a sample on disk, and from that to columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question

EXTRA_COLUMNS = ("kl_sum", "kl_tokens", "top1_agreed", "reference_logprob", "reference_tokens")
"""Numbers of a sample that are columns as they are."""


@dataclass(frozen=True, slots=True)
class SampledScore:
    """The likelihood of a text.

    Attributes:
        logprob: of all its tokens, in nats.
        ids: as many as it has.
    """

    logprob: float
    ids: Sequence[int]


def sample_of(message: Mapping[str, Any], question: Question, seconds: float) -> dict[str, Any]:
    """Return a worker's message as it is kept, with the seconds since the one before it."""
    sample = {name: value for name, value in message.items() if name != "place"}
    return {"line": question.line, **sample, "seconds": seconds}


def outcome_of(sample: Mapping[str, Any]) -> Outcome:
    """Return what a kind of task makes columns of."""
    if "text" in sample:
        return str(sample["text"])
    if "scores" in sample:
        return [_score(score) for score in sample["scores"]]
    return _score(sample)


def columns_of(
    outcomes: Sequence[tuple[Mapping[str, float], Mapping[str, Any]]],
) -> dict[str, tuple[float, ...]]:
    """Return the columns of a run: those of its kind, and those that every sample has.

    A column that only some samples have is 0 for the others: the logits of the first texts alone
    are compared, and an empty text has no likelihood.

    Args:
        outcomes: the kind's columns of each question, and its sample.
    """
    rows = []
    for made, sample in outcomes:
        row = dict(made)
        row |= {name: float(sample[name]) for name in EXTRA_COLUMNS if name in sample}
        if "judge" in sample:
            row["judge"] = float(sample["judge"])
        row["cut"] = float(sample.get("was_cut", False))
        if "text" in sample:
            row["answer_tokens"] = float(sample["tokens"])
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: tuple(row.get(name, 0.0) for row in rows) for name in names}


def _score(score: Mapping[str, Any]) -> SampledScore:
    return SampledScore(float(score["logprob"]), range(int(score["tokens"])))
