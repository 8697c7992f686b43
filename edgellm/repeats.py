"""Lines of a log that would come again and again: one of a kind a minute, with a count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

QUIET_SECONDS = 60.0
"""In which a line is written once."""

MAX_NOTED = 1024
"""Lines that are remembered; the oldest are forgotten."""


class Repeats:
    """Remembers what was said lately; any thread may ask.

    Args:
        clock: of seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}  # when, and how often it was passed over

    def due(self, what: str) -> int | None:
        """Return how often something was passed over since it was said; None: pass it over."""
        now = self._clock()
        with self._lock:
            at, passed_over = self._said.pop(what, (-QUIET_SECONDS, 0))
            is_quiet = now - at < QUIET_SECONDS
            self._said[what] = (at, passed_over + 1) if is_quiet else (now, 0)
            if len(self._said) > MAX_NOTED:
                del self._said[next(iter(self._said))]
        return None if is_quiet else passed_over

    def say(self, what: str, say: Callable[[str], None], *, of: str | None = None) -> None:
        """Say something if it is due, and how often it was passed over.

        Args:
            what: the line.
            say: writes it.
            of: which kind it is of; None: of its own.
        """
        more = self.due(what if of is None else of)
        if more is not None:
            say(f"{what} ({more} more since the last time)" if more else what)
