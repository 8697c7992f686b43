"""A server's turn under a load, in figures: from its answers to what a record keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edgellm.bench.serving.answer import Answer

MAX_GAPS = 20_000
"""Gaps between tokens that a record keeps; of more, so many that percentiles stay the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A server under a load for a while.

    Attributes:
        seconds: how long its tokens were counted.
        tokens: those that came meanwhile, of all streams.
        finished: answers that ended meanwhile.
        first_token_seconds: of each whole answer, from when its request was due.
        latency_seconds: the same until its end.
        answer_tokens: tokens of each whole answer.
        prompt_tokens: of each whole answer's prompt, as the server counts them.
        gap_seconds: between two pieces of text of a stream, of all whole answers.
        finish_reasons: how often each.
        failures: requests without a whole answer, by kind.
        counted_by_server: answers whose tokens the server counted.
        client_seconds: processor time that the client took.
    """

    seconds: float
    tokens: int
    finished: int
    first_token_seconds: Sequence[float] = ()
    latency_seconds: Sequence[float] = ()
    answer_tokens: Sequence[int] = ()
    prompt_tokens: Sequence[int] = ()
    gap_seconds: Sequence[float] = ()
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    counted_by_server: int = 0
    client_seconds: float = 0.0


def turn_of(
    answers: Sequence[Answer], begun: float, ended: float, client_seconds: float = 0.0
) -> Turn:
    """Return the figures of the answers to all requests of a turn.

    Tokens count that came from ``begun`` to ``ended``, also those of answers that ended later. An
    answer whose tokens the server counts has as many at each piece of it.
    """
    whole = [answer for answer in answers if answer.failure is None]
    failed = Counter(answer.failure for answer in answers if answer.failure is not None)
    tokens = 0.0
    for answer in answers:
        inside = sum(begun <= moment <= ended for moment in answer.arrivals)
        if inside:
            tokens += inside * answer.tokens / len(answer.arrivals)
    gaps = [after - before for answer in whole for before, after in pairwise(answer.arrivals)]
    return Turn(
        seconds=ended - begun,
        tokens=round(tokens),
        finished=sum(begun <= answer.ended <= ended for answer in whole),
        first_token_seconds=[answer.arrivals[0] - answer.asked for answer in whole],
        latency_seconds=[answer.ended - answer.asked for answer in whole],
        answer_tokens=[answer.tokens for answer in whole],
        prompt_tokens=[answer.prompt_tokens for answer in whole if answer.prompt_tokens],
        gap_seconds=gaps,
        finish_reasons=dict(Counter(str(answer.finish_reason) for answer in whole)),
        failures=dict(failed),
        counted_by_server=sum(answer.completion_tokens is not None for answer in whole),
        client_seconds=client_seconds,
    )


def joined(turns: Sequence[Turn]) -> Turn:
    """Return several turns of a server as one."""
    return Turn(
        seconds=sum(turn.seconds for turn in turns),
        tokens=sum(turn.tokens for turn in turns),
        finished=sum(turn.finished for turn in turns),
        first_token_seconds=[one for turn in turns for one in turn.first_token_seconds],
        latency_seconds=[one for turn in turns for one in turn.latency_seconds],
        answer_tokens=[one for turn in turns for one in turn.answer_tokens],
        prompt_tokens=[one for turn in turns for one in turn.prompt_tokens],
        gap_seconds=[one for turn in turns for one in turn.gap_seconds],
        finish_reasons=dict(sum((Counter(turn.finish_reasons) for turn in turns), Counter())),
        failures=dict(sum((Counter(turn.failures) for turn in turns), Counter())),
        counted_by_server=sum(turn.counted_by_server for turn in turns),
        client_seconds=sum(turn.client_seconds for turn in turns),
    )


def thinned(samples: Sequence[float], most: int = MAX_GAPS) -> tuple[float, ...]:
    """Return so many samples, sorted, that every percentile is nearly that of all.

    The smallest and the largest are among them; as few as ``most`` are returned as they are.
    """
    if len(samples) <= most:
        return tuple(samples)
    ordered = sorted(samples)
    last = len(ordered) - 1
    return tuple(ordered[round(place * last / (most - 1))] for place in range(most))
