"""A completion as it comes, the ways to show it, and what is said below it."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from edgellm.console.status_line import Activity, StatusLine
from edgellm.console.streams import is_terminal
from edgellm.console.terminal import note, out, write
from edgellm.console.units import plural, seconds, speed
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from edgellm.generation.stats import Stats

TAB_COLUMNS = 8


class CompletionView(AbstractContextManager["CompletionView", None], Protocol):
    """A place for the text of one completion, inside a ``with``.

    At its end the last line is ended, and what was there for the time being is wiped off.
    """

    def add(self, text: str) -> None:
        """Show more text."""
        ...

    def think(self, text: str) -> None:
        """Show more of what comes before the text, where it can be taken away again."""
        ...

    def fold(self, line: str) -> None:
        """Put a line in the place of the thinking, which has ended."""
        ...


def completion_view(activity: Activity, *, plain: bool) -> CompletionView:
    """Return the view that suits standard output; ``plain`` rules out markdown."""
    can_draw = is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"
    if plain or not can_draw or "NO_COLOR" in os.environ:
        return PlainView(activity)
    from edgellm.console.markdown_view import MarkdownView

    return MarkdownView(activity, out())


class SilentView:
    """Nothing but the status line; the text goes elsewhere."""

    def __init__(self, activity: Activity) -> None:
        self._status = StatusLine(activity)

    def __enter__(self) -> SilentView:
        """Begin."""
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe the line off."""
        self._status.stop()

    def add(self, text: str) -> None:
        """Show nothing."""

    def think(self, text: str) -> None:
        """Show nothing."""

    def fold(self, line: str) -> None:
        """Show nothing."""


class PlainView:
    """Text as it is, at once, with a status line behind it on a terminal."""

    def __init__(self, activity: Activity) -> None:
        self._status = StatusLine(activity)
        self._line = ""
        # only a status line has to know where the text ends
        self._follows_cursor = is_terminal(sys.stdout) and StatusLine.possible()

    def __enter__(self) -> PlainView:
        """Begin."""
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the last line."""
        self._status.stop()
        write("\n")

    def add(self, text: str) -> None:
        """Show more text."""
        with self._status.paused():
            write(text)
            if self._follows_cursor:
                self._line = (self._line + escape_controls(text)).rpartition("\n")[2]
                columns = shutil.get_terminal_size().columns
                self._status.column = last_column(self._line, columns)

    def think(self, text: str) -> None:
        """Show nothing: standard output gets the answer alone."""

    def fold(self, line: str) -> None:
        """Say the line on standard error."""
        with self._status.paused():
            note(line)


def show_speed(stats: Stats) -> None:
    """Say how many tokens a completion has, and how fast they came."""
    parts = [plural(stats.completion_tokens, "token")]
    if stats.decode_tokens_per_second:
        parts.append(speed(stats.decode_tokens_per_second))
    parts.append(f"first token after {seconds(stats.first_token_seconds)}")
    note(", ".join(parts))


def show_cut_off(stats: Stats, *, max_tokens: int | None, context: int) -> None:
    """Say which limit has ended a completion that was not at its end."""
    if max_tokens is not None and stats.completion_tokens >= max_tokens:
        note(f"cut off at --max-tokens {max_tokens}")
    else:
        note(f"cut off: the context of {plural(context, 'token')} is full; --context sets it")


def last_column(line: str, width: int) -> int:
    """Return the cursor's column after a line that a terminal of this width has wrapped."""
    from rich.cells import cell_len

    column = 0
    for character in line:
        cells = cell_len(character)
        if character == "\t":
            cells = TAB_COLUMNS - column % TAB_COLUMNS
        if column + cells > width:
            column = 0
        column += cells
    return column
