"""The status line: what a completion is doing while the user waits for it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgellm.console.streams import is_terminal
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
    """Counts of what happens in one completion.

    Args:
        bytes_read: returns the bytes that the model has read from disk so far.
        clock: returns seconds.

    Attributes:
        stopping: whether a person has asked for the end.
        thinking: whether tokens come that may not be shown.
        typed: returns what a person has typed meanwhile, as it is to be shown.
    """

    def __init__(
        self, bytes_read: Callable[[], int], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._bytes_read = bytes_read
        self._read_before = bytes_read()
        self._begun = clock()
        self._last_token_at: float | None = None
        self._tokens = 0
        self._progress: Progress | None = None
        self.stopping = False
        self.thinking = False
        self.typed: Callable[[], str] = str

    def prefill(self, progress: Progress) -> None:
        """Note how far the prompt is."""
        self._progress = progress

    def token(self) -> None:
        """Note a new token."""
        self._tokens += 1
        self._last_token_at = self._clock()

    @property
    def quiet(self) -> bool:
        """Whether nothing has come for so long that the line should show."""
        if self.stopping or self.thinking or self.typed():
            return True
        if self._last_token_at is None:
            return self._clock() - self._begun > FIRST_PATIENCE
        return self._clock() - self._last_token_at > PATIENCE

    def line(self, columns: int) -> str:
        """Return as much of what is going on as fits into ``columns``, the most important first."""
        typed = self.typed()
        if typed and not self.stopping:
            return _beginning(typed, columns)
        elapsed = self._clock() - self._begun
        frame = FRAMES[int(elapsed * FRAMES_PER_SECOND) % len(FRAMES)]
        full = f"{frame} {self._doing()} · {seconds(elapsed)}"
        lines = [frame, f"{frame} {seconds(elapsed)}", full]
        bytes_read = self._bytes_read() - self._read_before
        if bytes_read > 0 and elapsed > 0:
            lines.append(f"{full} · {size(bytes_read)} read · {rate(bytes_read / elapsed)}")
        fitting = [line for line in lines if len(line) <= columns]
        return fitting[-1] if fitting else ""

    def _doing(self) -> str:
        if self.stopping:
            return "stopping, Ctrl-C again stops at once"
        if self.thinking:
            return f"thinking, {plural(self._tokens, 'token')}"
        if self._tokens:
            return plural(self._tokens, "token")
        if self._progress is None:
            return "reading the prompt"
        if self._progress.prefill_ended_at is not None:
            return "searching"  # with beams nothing is sure before the end
        total = plural(self._progress.prompt_tokens, "token")
        if self._progress.prefill_done:
            return f"reading the prompt, {self._progress.prefill_done:,} of {total}"
        return f"reading the prompt, {total}"


class StatusLine:
    """An activity drawn behind the text that is being written, from a thread of its own.

    It is drawn on standard error, and only on a terminal: what is written to standard output stays
    clean.

    Attributes:
        column: the cursor's column, where the text ends; set inside ``paused``.
    """

    def __init__(self, activity: Activity) -> None:
        self.column = 0
        self._activity = activity
        self._drawn_columns = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @staticmethod
    def possible() -> bool:
        """Return whether standard error is a terminal that can wipe a line."""
        return is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"

    def start(self) -> None:
        """Begin to watch, where a line can be drawn."""
        if self.possible():
            self._thread = threading.Thread(target=self._watch, name="edgellm-status", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Wipe the line off and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self.paused():
            pass

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wipe the line off, and draw nothing while the ``with`` lasts."""
        with self._lock:
            if self._drawn_columns:
                sys.stderr.write("\x1b[K")  # erases to the end of the line
                sys.stderr.flush()
                self._drawn_columns = 0
            yield

    def _watch(self) -> None:
        while not self._stop.wait(1 / FRAMES_PER_SECOND):
            if self._activity.quiet:
                with self._lock:
                    self._draw()

    def _draw(self) -> None:
        from rich.cells import cell_len

        gap = 2 if self.column else 0
        # The last column stays free: a terminal that wraps there would not come back to where the
        # text stands.
        line = self._activity.line(shutil.get_terminal_size().columns - self.column - gap - 1)
        if line:
            self._drawn_columns = gap + cell_len(line)
            # erase, gap, dim text, and back to where the text ends
            sys.stderr.write(f"\x1b[K{' ' * gap}\x1b[2m{line}\x1b[0m\x1b[{self._drawn_columns}D")
            sys.stderr.flush()


def _beginning(text: str, columns: int) -> str:
    """Return as much of a text as fits."""
    from rich.cells import set_cell_size

    return set_cell_size(text, max(columns, 0)).rstrip()
