"""How time falls as threads are added: speed-up, efficiency, and Amdahl's parallel fraction."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgellm.bench.records.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Times of the same work on several numbers of threads.

    Attributes:
        seconds: by number of threads.
    """

    seconds: Mapping[int, float]

    @property
    def fewest_threads(self) -> int:
        """Smallest number of threads, with which the others are compared."""
        return min(self.seconds)

    def speed_up(self, threads: int) -> float:
        """Return how many times as fast it is as with the fewest threads."""
        return self.seconds[self.fewest_threads] / self.seconds[threads]

    def efficiency(self, threads: int) -> float:
        """Return the speed-up for each thread added: 1 where all of them do their full part."""
        return self.speed_up(threads) * self.fewest_threads / threads

    @property
    def parallel_fraction(self) -> float | None:
        """Amdahl's p, the part of the work that threads divide; None of one number of threads.

        With n threads for each of the fewest the time is ``1 - p + p / n`` of theirs; p is fitted
        by least squares. Below 0 threads hinder; a little above 1 is noise, or caches that only
        several cores have.

        Source: G. M. Amdahl, "Validity of the single processor approach to achieving large scale
            computing capabilities", 1967.
        """
        fewest = self.fewest_threads
        others = [threads for threads in self.seconds if threads != fewest]
        if not others:
            return None
        # a straight line through the origin: time saved = p * (1 - 1/n)
        xs = [1 - fewest / threads for threads in others]
        ys = [1 - 1 / self.speed_up(threads) for threads in others]
        return sum(x * y for x, y in zip(xs, ys, strict=True)) / sum(x * x for x in xs)


def scalings(records: Sequence[Record]) -> dict[str, Scaling]:
    """Return each model's seconds per token, over all of its questions, by number of threads.

    Records without a time or a number of threads are left out.
    """
    groups: dict[str, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.threads and record.seconds_per_token:
            groups[record.model][record.threads].append(record)
    return {
        model: Scaling(
            seconds={
                threads: _seconds_per_token(group) for threads, group in sorted(by_threads.items())
            }
        )
        for model, by_threads in groups.items()
    }


def _seconds_per_token(records: Sequence[Record]) -> float:
    seconds = sum(statistics.median(record.seconds) for record in records)
    return seconds / sum(record.tokens for record in records)
