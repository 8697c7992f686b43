"""Stop texts: what may still become one is held back, also across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import compress


class StopFilter:
    """Lets text through up to the first stop text: the one that is complete first.

    It does so wherever tokens begin and end. Special tokens count as they are written, and are
    never shown.

    Args:
        stops: the stop texts; none of them is empty.

    Attributes:
        stopped: whether a stop text has come.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self._is_shown: list[bool] = []  # of each character held
        self.stopped = False

    def copy(self) -> StopFilter:
        """Return a filter that goes on from here with a text of its own."""
        other = copy(self)
        other._is_shown = self._is_shown.copy()
        return other

    def add(self, text: str, *, shown: bool = True) -> str:
        """Return what is safe to show now; sets ``stopped`` when a stop text has come.

        Args:
            text: what comes next.
            shown: whether it is text, and not how a special token is written.
        """
        if self.stopped:
            return ""
        self._held += text
        self._is_shown += [shown] * len(text)
        spans = []
        for stop in self._stops:
            begin = self._held.find(stop)
            if begin >= 0:
                spans.append((begin + len(stop), begin))
        if spans:
            # of those that are complete first, the longest
            _, begin = min(spans)
            self.stopped = True
            before = self._release(begin)
            self._held = ""
            return before
        return self._release(len(self._held) - self._possible_start(self._held))

    def finish(self) -> str:
        """Return what was held back and became no stop text."""
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        """Let go of the first characters that are held, and return those that are shown."""
        released = "".join(compress(self._held[:count], self._is_shown))
        self._held = self._held[count:]
        self._is_shown = self._is_shown[count:]
        return released

    def _possible_start(self, text: str) -> int:
        """Return the length of the longest end of a text that a stop text begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
