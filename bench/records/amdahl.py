"""What more threads bring: speed-up, efficiency, and the share of the work that they divide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How a time falls as threads are added.

    Attributes:
        seconds: by number of threads.
        base: the smallest of those numbers, with which the others are compared.
    """

    seconds: Mapping[int, float]

    @property
    def base(self) -> int:
        """The fewest threads."""
        return min(self.seconds)

    def speed_up(self, threads: int) -> float:
        """How many times as fast as with the fewest threads."""
        return self.seconds[self.base] / self.seconds[threads]

    def efficiency(self, threads: int) -> float:
        """Speed-up for each of the threads that were added: 1 where all of them do their full part."""
        return self.speed_up(threads) * self.base / threads

    @property
    def parallel_share(self) -> float | None:
        """Amdahl's share p of the work that threads divide, fitted by least squares; None of one number of threads.

        With n threads for each of the fewest the time is ``1 - p + p / n`` of theirs. Below 0
        threads hinder; a little above 1 is noise, or caches that only several cores have.

        Source: G. M. Amdahl, "Validity of the single processor approach to achieving large scale
            computing capabilities", 1967.
        """
        saved = [
            (1 - self.base / threads, 1 - 1 / self.speed_up(threads))
            for threads in self.seconds
            if threads != self.base
        ]
        return sum(x * y for x, y in saved) / sum(x * x for x, _ in saved) if saved else None
