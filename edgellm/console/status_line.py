"""What an answer is doing while somebody waits for it, in one line."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgellm.console.terminal import is_terminal
from edgellm.console.units import plural, rate, seconds, size

if TYPE_CHECKING:
    from edgellm.generation.stats import Progress

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAMES_PER_SECOND = 8
PATIENCE = 1.0
"""Seconds without a token after which the line appears."""

FIRST_PATIENCE = 0.3
"""The same before the first token: then nothing shows that the program is alive."""


class Activity:
    """Counts what happens in one answer.

    Args:
        bytes_read: tells the bytes that the model has read from disk so far.
        clock: tells the seconds.
    """

    def __init__(
        self, bytes_read: Callable[[], int], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock, self._bytes_read = clock, bytes_read
        self._read_before = bytes_read()
        self._begun = self._last = clock()
        self._tokens = 0
        self._progress: Progress | None = None
        self.stopping = False

    def prefill(self, progress: Progress) -> None:
        """Note how far the prompt is."""
        self._progress = progress

    def token(self) -> None:
        """Note a new token."""
        self._tokens += 1
        self._last = self._clock()

    @property
    def quiet(self) -> bool:
        """Whether nothing has come for so long that the line should show."""
        return self.stopping or self._clock() - self._last > (
            PATIENCE if self._tokens else FIRST_PATIENCE
        )

    def line(self, room: int) -> str:
        """As much of what is going on as fits into ``room`` columns, the most important first."""
        elapsed = self._clock() - self._begun
        frame = FRAMES[int(elapsed * FRAMES_PER_SECOND) % len(FRAMES)]
        parts = [frame, f"{frame} {seconds(elapsed)}"]
        parts.append(f"{frame} {self._doing()} · {seconds(elapsed)}")
        read = self._bytes_read() - self._read_before
        if read > 0 and elapsed > 0:
            parts.append(f"{parts[-1]} · {size(read)} read · {rate(read / elapsed)}")
        return next((part for part in reversed(parts) if len(part) <= room), "")

    def _doing(self) -> str:
        if self.stopping:
            return "stopping, Ctrl-C again stops at once"
        if self._tokens:
            return plural(self._tokens, "token")
        if self._progress is None:
            return "reading the prompt"
        if self._progress.prefill_ended_at is not None:
            return "searching"  # with beams nothing is sure before the end
        total, done = plural(self._progress.prompt_tokens, "token"), self._progress.prefill_done
        return (
            f"reading the prompt, {done:,} of {total}" if done else f"reading the prompt, {total}"
        )


class StatusLine:
    """Draws an activity behind the text that is being written, from a thread of its own, and wipes it off again.

    It is drawn on standard error, and only on a terminal: what is written to standard output stays
    clean.
    """

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._column = 0
        self._shown = 0
        self._stop = threading.Event()
        self.lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @staticmethod
    def possible() -> bool:
        """Whether standard error is a terminal that can wipe a line."""
        return is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name="edgellm-status", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wipe the line off and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self.lock:
            self.wipe()

    def wipe(self) -> None:
        """Take the line off the screen; the caller holds the lock."""
        if self._shown:
            sys.stderr.write("\x1b[K")
            sys.stderr.flush()
            self._shown = 0

    def moved(self, column: int) -> None:
        """Note the column that the text has reached; the caller holds the lock."""
        self._column = column

    def _watch(self) -> None:
        while not self._stop.wait(1 / FRAMES_PER_SECOND):
            if self._activity.quiet:
                with self.lock:
                    self._draw()

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns
        gap = 2 if self._column else 0
        # The last column stays free: a terminal that wraps there would not come back to where the
        # text stands.
        line = self._activity.line(width - self._column - gap - 1)
        if not line or (self._column == 0 and self._column >= width):
            return
        self._shown = gap + len(line)
        sys.stderr.write(f"\x1b[K{' ' * gap}\x1b[2m{line}\x1b[0m\x1b[{self._shown}D")
        sys.stderr.flush()
