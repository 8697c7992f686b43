"""An answer as it comes, and the ways to show it."""

from __future__ import annotations

import os
import shutil
import sys
from types import TracebackType
from typing import Protocol

from edgellm.console.status_line import Activity, StatusLine
from edgellm.console.terminal import is_terminal, out, write


class Answer(Protocol):
    """Where the text of one answer goes."""

    def __enter__(self) -> Answer:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """End the answer's last line, and wipe off what was there for the time being."""
        ...

    def add(self, text: str) -> None:
        """Show more text."""
        ...


def answer_view(activity: Activity, *, plain: bool) -> Answer:
    """The way to show an answer that suits standard output."""
    markdown = (
        not plain
        and is_terminal(sys.stdout)
        and "NO_COLOR" not in os.environ
        and os.environ.get("TERM") != "dumb"
    )
    if not markdown:
        return PlainAnswer(activity)
    from edgellm.console.markdown_view import MarkdownAnswer

    return MarkdownAnswer(activity, out())


class SilentAnswer:
    """Nothing but the status line; the text goes elsewhere."""

    def __init__(self, activity: Activity) -> None:
        self._status = StatusLine(activity) if StatusLine.possible() else None

    def __enter__(self) -> SilentAnswer:
        """Begin."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe the line off."""
        if self._status is not None:
            self._status.stop()

    def add(self, text: str) -> None:
        """Show nothing."""


class PlainAnswer:
    """Text as it is, at once, with a status line behind it on a terminal."""

    def __init__(self, activity: Activity) -> None:
        self._status = StatusLine(activity) if StatusLine.possible() else None
        self._line = ""
        self._on_screen = is_terminal(sys.stdout)

    def __enter__(self) -> PlainAnswer:
        """Begin."""
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the last line."""
        if self._status is not None:
            self._status.stop()
        write("\n")

    def add(self, text: str) -> None:
        """Show more text."""
        if self._status is None:
            write(text)
            return
        with self._status.lock:
            self._status.wipe()
            write(text)
            if self._on_screen:
                self._line = (self._line + text).rpartition("\n")[2]
                self._status.moved(last_column(self._line, shutil.get_terminal_size().columns))


def last_column(line: str, width: int) -> int:
    """The column where the cursor stands after a line that a terminal of this width has wrapped."""
    from rich.cells import cell_len

    column = 0
    for character in line:
        cells = cell_len(character) if character != "\t" else 8 - column % 8
        column = cells if column + cells > width else column + cells
    return column
