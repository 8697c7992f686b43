"""Native calls of a few layers each, by as many threads as are fastest now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CALL_SECONDS = 0.02
"""Time of a call, where a single layer takes less."""

TINY_SECONDS = 0.005
"""Passes that take less try all numbers of threads at once."""

SLOWED = 1.4
"""So many times the least time so far, fewer threads may be faster: other programs hold cores."""

_RECENT = 0.15
"""Weight of the last pass in the time of passes."""

_TRIAL_COST = 0.005
"""Share of the time that passes by other numbers of threads may cost."""

_MIN_INTERVAL = 8


class Pace:
    """Measures the time of a layer by the tokens that go through it.

    A call per layer would run the interpreter 22 times a token with caches full of weights, and one
    for all layers could not be stopped: a prompt of 128 tokens takes 0.7 s in 1.1B.
    """

    def __init__(self) -> None:
        self._layer_seconds: dict[int, float] = {}

    def layers_at_once(self, tokens: int) -> int:
        """Return the number of layers in a call; one where nothing is known."""
        seconds = self._layer_seconds.get(tokens)
        if not seconds:
            return 1
        return max(1, int(CALL_SECONDS / seconds))

    def observe(self, tokens: int, layer_seconds: float) -> None:
        """Note the time of a layer; the least counts, since other programs run too."""
        known = self._layer_seconds.get(tokens, layer_seconds)
        self._layer_seconds[tokens] = min(layer_seconds, known)


@dataclass(slots=True)
class _Passes:
    """Passes by a number of threads: their recent time, the least, and when they are due again."""

    recent: float | None = None
    least: float = float("inf")
    due: int = 0

    def observe(self, seconds: float, *, is_trial: bool) -> None:
        self.least = min(self.least, seconds)
        if self.recent is None or is_trial:
            self.recent = seconds  # the time of passes long ago says little
        self.recent += _RECENT * (seconds - self.recent)


class Crew:
    """Chooses the number of threads of passes that are alike, by the time that they take.

    Threads wait for each other after each step. Where other programs hold the cores, one thread
    alone is as fast as two or faster (45 ms a token instead of 53 beside one busy program in 1.1B),
    in a tiny model four times as fast. All threads are the first choice. Others are tried where
    passes have become slow or are tiny, and then again the more seldom the slower they were.

    Args:
        threads: the most that there are.
    """

    def __init__(self, threads: int) -> None:
        choices: Sequence[int] = sorted({1, max(1, threads // 2), threads}, reverse=True)
        self._passes = {choice: _Passes() for choice in choices}
        self._most = threads
        self._number = 0  # of passes

    def threads(self) -> int:
        """Return how many threads take the next pass."""
        self._number += 1
        best = self._best()
        for choice, passes in self._passes.items():
            if choice == best:
                continue
            if passes.recent is None:
                if self._is_worth_trying(best):
                    return choice
            elif self._number >= passes.due:
                return choice
        return best

    def observe(self, threads: int, seconds: float) -> None:
        """Note the time of a pass; not of the first, which makes steps and wakes threads."""
        if self._number == 1:
            return
        passes = self._passes[threads]
        passes.observe(seconds, is_trial=threads != self._best())
        best = self._passes[self._best()].recent
        assert best is not None, "one was observed"
        assert passes.recent is not None, "just now"
        lost = passes.recent / best - 1
        passes.due = self._number + max(_MIN_INTERVAL, int(lost / _TRIAL_COST))

    def _best(self) -> int:
        known = {
            choice: passes.recent
            for choice, passes in self._passes.items()
            if passes.recent is not None
        }
        if not known:
            return self._most
        return min(known, key=known.__getitem__)

    def _is_worth_trying(self, best: int) -> bool:
        passes = self._passes[best]
        if passes.recent is None:
            return False
        return passes.recent < TINY_SECONDS or passes.recent > SLOWED * passes.least
