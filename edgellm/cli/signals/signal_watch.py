"""Wakes the main thread for a signal that reached the process while it was about to block.

Python notes a signal and handles it between two instructions of the main thread. One that comes
after the last instruction, but before a call that waits has begun to, or on another thread, would
be handled when that call returns: in a minute, or never.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

WAKE = signal.SIGURG
"""The signal that ends a wait and means nothing else; without a handler it is ignored."""

WAKES_AFTER_SECONDS = (0.05, 0.2, 1.0)
"""Waits before each attempt to wake the main thread; a signal that was handled needs none."""


class SignalWatch:
    """A thread that hears of each signal at once, and wakes the main thread a little later.

    A wake that was not needed does nothing: waits that Python began go on for the time left.
    """

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        self._numbers = numbers
        self._heard, written = os.pipe()
        os.set_blocking(written, False)
        signal.signal(WAKE, self._do_nothing)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def _watch(self) -> None:
        main = threading.main_thread()
        while heard := os.read(self._heard, 1):
            if heard[0] not in self._numbers:
                continue
            for seconds in WAKES_AFTER_SECONDS:
                time.sleep(seconds)
                with suppress(ProcessLookupError):  # the process ends
                    signal.pthread_kill(main.ident or 0, WAKE)

    @staticmethod
    def _do_nothing(*_: object) -> None:
        """Be there: a signal without a handler ends no wait."""
