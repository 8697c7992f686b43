"""A bar on a terminal's standard error: which of how many tests, and the time that is left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from edgellm.bench.worker.status import Status
from edgellm.console.streams import is_terminal
from edgellm.console.terminal import err, say
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class StatusLine:
    """A bar that is drawn while the ``with`` lasts; elsewhere than on a terminal, notes alone."""

    def __init__(self) -> None:
        self._drawn: tuple[Progress, TaskID] | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> StatusLine:
        """Begin to draw."""
        if is_terminal(sys.stderr):
            from rich import progress

            bar = progress.Progress(
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(bar_width=20),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[left]}", markup=False),
                console=err(),
                transient=True,
            )
            self._drawn = bar, bar.add_task("", total=None, left="")
            bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe it off."""
        if self._drawn is not None:
            self._drawn[0].stop()

    def show(self, status: Status) -> None:
        """Draw the status of a run."""
        if self._drawn is None:
            return
        bar, task = self._drawn
        done = max(0, status.number - 1)
        left = time_left(time.monotonic() - self._begun, done, status.total)
        text = escape_controls(f"{status.title}: {status.doing}")
        bar.update(task, description=text, completed=done, total=status.total, left=left)

    def note(self, text: str) -> None:
        """Write a line that stays."""
        if self._drawn is not None:
            self._drawn[0].console.print(text, style="dim")
        else:
            say(text)


def time_left(elapsed: float, done: int, total: int) -> str:
    """Return the time of the tests that are left, were they like those so far, in words.

    Empty before the first is done.
    """
    if done == 0:
        return ""
    seconds = round(elapsed / done * (total - done))
    if seconds < 100:
        return f"{seconds} s left"
    return f"{round(seconds / 60)} min left"
