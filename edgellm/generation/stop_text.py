"""Stop texts: what may still become one is held back, also across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Lets text through up to the first stop text: the one that is complete first.

    It does so wherever tokens begin and end.

    Args:
        stops: the stop texts; none of them is empty.

    Attributes:
        stopped: whether a stop text has come.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """Return what is safe to show now; sets ``stopped`` when a stop text has come."""
        if self.stopped:
            return ""
        text = self._held + text
        spans = []
        for stop in self._stops:
            begin = text.find(stop)
            if begin >= 0:
                spans.append((begin + len(stop), begin))
        if spans:
            # of those that are complete first, the longest
            _, begin = min(spans)
            self.stopped = True
            self._held = ""
            return text[:begin]
        safe = len(text) - self._possible_start(text)
        self._held = text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """Return what was held back and became no stop text."""
        held = self._held
        self._held = ""
        return held

    def _possible_start(self, text: str) -> int:
        """Return the length of the longest end of a text that a stop text begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
