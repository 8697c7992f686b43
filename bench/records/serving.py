"""Records of load tests: a server under many users at once, or under a rate of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from edgellm.bench.records.doubts import (
    Doubt,
    doubt_client,
    doubt_failures,
    doubt_spread,
    spread_of,
)
from edgellm.bench.records.fields import Count, Rate, Seconds
from edgellm.bench.records.record import Record, median, percentile, quotient


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRecord(Record):
    """A server under a load: ``backend`` names it; ``batch`` are users, ``seconds`` turns.

    Attributes:
        url: the address that was loaded.
        rate: requests that arrived in a second; None: each user waited for its answer.
        spawn_rate: users that started in a second; None: all at once.
        max_tokens: that were asked for.
        turn_tokens: tokens that came in each turn.
        finished: answers that ended while a turn lasted.
        first_token_seconds: of each whole answer, from when its request was due.
        latency_seconds: the same until its end.
        answer_tokens: tokens of each whole answer.
        gap_seconds: between two pieces of text of a stream; of very many, an even choice.
        prompt_tokens: of a prompt, the median, as the server counts them.
        finish_reasons: how often each.
        failures: requests without a whole answer, by kind.
        tokens_counted: by whom: ``server``, ``pieces`` of text, or ``both`` for some of each.
        client_seconds: processor time that the client took, in all turns.
    """

    KIND: ClassVar[str] = "serving"

    url: str = ""
    rate: Rate | None = None
    spawn_rate: Rate | None = None
    max_tokens: Count = 0
    turn_tokens: tuple[Count, ...] = ()
    finished: Count = 0
    first_token_seconds: tuple[Seconds, ...] = ()
    latency_seconds: tuple[Seconds, ...] = ()
    answer_tokens: tuple[Count, ...] = ()
    gap_seconds: tuple[Seconds, ...] = ()
    prompt_tokens: Count | None = None
    finish_reasons: Mapping[str, Count] = field(default_factory=dict)
    failures: Mapping[str, Count] = field(default_factory=dict)
    tokens_counted: str | None = None
    client_seconds: Seconds | None = None

    DERIVED: ClassVar[tuple[str, ...]] = (
        *("tokens_per_second", "requests_per_second", "failed", "client_share", "spread"),
        *("ttft_p50", "ttft_p95", "ttft_p99", "itl_p50", "itl_p95", "itl_p99"),
        *("latency_p50", "latency_p95", "latency_p99", "tpot_p50", "warnings"),
    )

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all streams a second."""
        return quotient(sum(self.turn_tokens), sum(self.seconds))

    @property
    def seconds_per_token(self) -> float | None:
        """Seconds for each token of a stream, the median (TPOT)."""
        return self.tpot_p50

    @property
    def requests_per_second(self) -> float | None:
        """Answers that ended in a second."""
        return quotient(self.finished, sum(self.seconds))

    @property
    def failed(self) -> int:
        """Requests without a whole answer."""
        return sum(self.failures.values())

    @property
    def client_share(self) -> float | None:
        """Processor time of the client, as a fraction of one core."""
        return quotient(self.client_seconds, sum(self.seconds))

    @property
    def ttft_p50(self) -> float | None:
        """Seconds in which half of the answers have begun."""
        return percentile(self.first_token_seconds, 50)

    @property
    def ttft_p95(self) -> float | None:
        """Seconds in which 95 of 100 answers have begun."""
        return percentile(self.first_token_seconds, 95)

    @property
    def ttft_p99(self) -> float | None:
        """Seconds in which 99 of 100 answers have begun."""
        return percentile(self.first_token_seconds, 99)

    @property
    def itl_p50(self) -> float | None:
        """Seconds that half of the gaps between pieces of text stay below."""
        return percentile(self.gap_seconds, 50)

    @property
    def itl_p95(self) -> float | None:
        """Seconds that 95 of 100 gaps between pieces of text stay below."""
        return percentile(self.gap_seconds, 95)

    @property
    def itl_p99(self) -> float | None:
        """Seconds that 99 of 100 gaps between pieces of text stay below."""
        return percentile(self.gap_seconds, 99)

    @property
    def latency_p50(self) -> float | None:
        """Seconds in which half of the answers have ended."""
        return percentile(self.latency_seconds, 50)

    @property
    def latency_p95(self) -> float | None:
        """Seconds in which 95 of 100 answers have ended."""
        return percentile(self.latency_seconds, 95)

    @property
    def latency_p99(self) -> float | None:
        """Seconds in which 99 of 100 answers have ended."""
        return percentile(self.latency_seconds, 99)

    @property
    def tpot_p50(self) -> float | None:
        """Seconds of a token after the first, the median of the answers."""
        per_token = [
            (latency - first) / (tokens - 1)
            for first, latency, tokens in zip(
                self.first_token_seconds, self.latency_seconds, self.answer_tokens, strict=False
            )
            if tokens > 1 and latency >= first
        ]
        return median(per_token)

    @property
    def spread(self) -> float | None:
        """Half the distance of the slowest and the fastest turn, as a fraction of the median."""
        per_token = tuple(
            seconds / tokens
            for seconds, tokens in zip(self.seconds, self.turn_tokens, strict=False)
            if tokens
        )
        return spread_of(per_token, median(per_token))

    @property
    def doubts(self) -> list[Doubt]:
        """The reasons to doubt its figures."""
        return [
            *doubt_failures(self.failures, len(self.latency_seconds)),
            *doubt_client(self.client_share),
            *doubt_spread(self.spread),
        ]
