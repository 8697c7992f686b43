"""An answer as it comes: plain text, or markdown of which only the unfinished end is drawn anew."""

from __future__ import annotations

import os
import shutil
import sys
import time
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol

from edgellm.console.activity import Activity, StatusLine
from edgellm.console.terminal import is_terminal, out, write

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import Markdown
    from rich.segment import Segment

FRAMES_PER_SECOND = 10
DRAWING_SHARE = 0.1
"""Of the time; at most so much may be spent on drawing, since drawing takes processor time from the model."""


class Answer(Protocol):
    """Where the text of one answer goes."""

    def __enter__(self) -> Answer:
        """Begin."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        """End the answer's last line, and wipe off what was there for the time being."""
        ...

    def add(self, text: str) -> None:
        """Show more text."""
        ...


def answer_view(activity: Activity, *, plain: bool) -> Answer:
    """The way to show an answer that suits standard output."""
    markdown = not plain and is_terminal(sys.stdout) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return MarkdownAnswer(activity, out()) if markdown else PlainAnswer(activity)


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


class MarkdownAnswer:
    """Markdown: blocks that are finished are printed once, and the one that still grows is drawn below them.

    Of a block taller than the screen its end is drawn, until it is finished and printed whole.
    """

    def __init__(self, activity: Activity, console: Console) -> None:
        from rich.live import Live

        self._activity, self._console = activity, console
        self._text = ""
        self._printed = False
        self._drawn: tuple[str, int, list[list[Segment]]] = ("", 0, [])
        self._next_drawing = 0.0
        self._live = Live(
            get_renderable=self._frame,
            console=console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> MarkdownAnswer:
        """Begin."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Print what is left."""
        text, self._text = self._text, ""
        self._live.stop()
        self._print(text)

    def add(self, text: str) -> None:
        """Show more text."""
        self._text += text
        if "\n" in text:
            finished, rest = finished_blocks(self._text)
            if finished:
                self._text = rest
                self._print(finished)

    def _print(self, text: str) -> None:
        lines = self._laid_out(text)
        if lines:
            self._printed = True
            self._console.print(_Lines(lines))

    def _frame(self) -> _Lines:
        """The unfinished block and the status line, as tall as the screen allows."""
        width, height = self._console.size
        room = max(1, height - 2)
        lines = self._tail(width)
        if self._activity.quiet:
            lines = [*lines, self._status(width)]
        return _Lines(lines[-room:])

    def _status(self, width: int) -> list[Segment]:
        from rich.segment import Segment
        from rich.style import Style

        return [Segment(self._activity.line(width - 1), Style(dim=True))]

    def _tail(self, width: int) -> list[list[Segment]]:
        text, now = self._text, time.perf_counter()
        if (text, width) != self._drawn[:2] and (now >= self._next_drawing or width != self._drawn[1]):
            self._drawn = (text, width, self._laid_out(text))
            self._next_drawing = now + (time.perf_counter() - now) / DRAWING_SHARE
        return self._drawn[2] if text else []

    def _laid_out(self, text: str) -> list[list[Segment]]:
        """The lines of some blocks, with an empty one before them if others stand above."""
        lines = [_stripped(line) for line in self._console.render_lines(markdown(text), pad=False)]
        filled = [number for number, line in enumerate(lines) if line]
        if not filled:
            return []
        above: list[list[Segment]] = [[]] if self._printed else []
        return above + lines[filled[0] : filled[-1] + 1]


def _stripped(line: list[Segment]) -> list[Segment]:
    """A line without the blanks that fill it up: what is copied from the screen has none."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return [*line[:-1], line[-1]._replace(text=line[-1].text.rstrip())] if line else []


class _Lines:
    """Lines that are laid out already."""

    def __init__(self, lines: list[list[Segment]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for line in self._lines:
            yield from line
            yield Segment.line()


def finished_blocks(text: str) -> tuple[str, str]:
    """Cut markdown before its last block: what comes before it no longer changes, whatever follows.

    Only whole lines are looked at, since half of one may yet become anything.
    """
    whole = text.rpartition("\n")[0]
    begins = [token.map[0] for token in _parser().parse(whole) if token.level == 0 and token.map and token.nesting >= 0]
    if len(begins) < 2:
        return "", text
    lines = text.split("\n")
    return "\n".join(lines[: begins[-1]]), "\n".join(lines[begins[-1] :])


def markdown(text: str) -> Markdown:
    """Markdown as models write it: every line break is meant, and tags are shown and not obeyed."""
    rendered: Markdown = _markdown_class()(text, code_theme="ansi_dark", hyperlinks=False)
    rendered.parsed = _parser().parse(text)
    for block in rendered.parsed:
        for token in block.children or ():
            if token.type == "softbreak":
                token.type = "hardbreak"
    return rendered


@cache
def _markdown_class() -> type[Markdown]:
    """Rich's markdown with headings on the left, where text that is read from top to bottom has them."""
    from rich.markdown import Heading, Markdown

    class LeftHeading(Heading):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            self.text.justify = "left"
            yield self.text

    class AnswerMarkdown(Markdown):
        elements: ClassVar = Markdown.elements | {"heading_open": LeftHeading}

    return AnswerMarkdown


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
