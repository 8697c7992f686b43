"""The counters and times of a server."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

FIRST_TOKEN_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
BETWEEN_TOKENS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 10)


class Histogram:
    """How many values there were up to some bounds, and their sum.

    Args:
        bounds: in ascending order.

    Attributes:
        counts: values above the bound before and up to each, and above the last one.
        total: the sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """Counters since the server was started; one event loop changes them.

    Attributes:
        requests: requests that were answered, by their path and status.
        disconnects: requests whose clients left before the answer's end.
        ends: answers by the reason of their end.
        first_token: seconds from a request to the first token of an answer.
        between_tokens: seconds from a token to the next.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.disconnects: int = 0
        self.ends: Counter[str] = Counter()
        self.first_token: Histogram = Histogram(FIRST_TOKEN_SECONDS)
        self.between_tokens: Histogram = Histogram(BETWEEN_TOKENS_SECONDS)
