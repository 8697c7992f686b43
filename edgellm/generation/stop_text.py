"""Text that may still become a stop text is held back, also across token borders."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Lets text through up to the first stop text: the one that is complete first, wherever tokens begin and end."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """Return what is safe to show now; sets ``stopped`` when a stop text has come."""
        if self.stopped:
            return ""
        held = self._held + text
        found = [
            (place + len(stop), place) for stop in self._stops if (place := held.find(stop)) >= 0
        ]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)[1]]
        keep = next(
            (
                length
                for length in range(min(self._longest - 1, len(held)), 0, -1)
                if any(stop.startswith(held[len(held) - length :]) for stop in self._stops)
            ),
            0,
        )
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """Return what was held back and became no stop text."""
        held, self._held = self._held, ""
        return held
