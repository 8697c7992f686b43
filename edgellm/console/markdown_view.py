"""Markdown that grows: finished blocks are printed once, and the last one is redrawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from edgellm.console.status_line import Activity
from edgellm.errors import escape_controls

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import Markdown
    from rich.segment import Segment

    Line = list[Segment]

FRAMES_PER_SECOND = 10
DRAWING_SHARE = 0.1
"""Maximum fraction of the time: drawing takes processor time from the model."""


class MarkdownView:
    """A completion as markdown: above, what is printed for good; below it, the block that grows.

    Of a block taller than the screen its end is drawn, until it is finished and printed whole.

    Args:
        activity: shown as a status line while no text comes.
        console: the terminal.
        drawing_share: part of the time that may be spent on drawing.
    """

    def __init__(
        self, activity: Activity, console: Console, *, drawing_share: float = DRAWING_SHARE
    ) -> None:
        from rich.live import Live

        self._activity = activity
        self._console = console
        self._drawing_share = drawing_share
        self._text = ""  # not printed yet
        self._thinking = ""
        self._anything_printed = False
        # The lines of the unfinished block, and the text and the width that they were made of.
        self._drawn_lines: list[Line] = []
        self._drawn_of = ("", 0)
        self._next_drawing = 0.0
        # Live redraws when it is told to; a thread of its own would draw between taking a block
        # from the text and printing it.
        self._live = Live(
            _Lines(self._frame),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgellm-drawing", daemon=True)

    def __enter__(self) -> MarkdownView:
        """Begin."""
        self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Print what is left."""
        self._stop.set()
        self._thread.join()
        self._live.stop()
        self._print(self._text)

    def add(self, text: str) -> None:
        """Show more text."""
        # before it is taken for markdown, so that lines fit
        text = escape_controls(text)
        with self._lock:
            self._text += text
            if "\n" not in text:
                return  # no line has ended, so no block has
            finished, rest = split_finished(self._text)
            if finished:
                self._text = rest
                self._next_drawing = 0.0  # what was drawn still shows the finished blocks
                self._print(finished)

    def think(self, text: str) -> None:
        """Show more thinking, until it is folded."""
        with self._lock:
            self._thinking += escape_controls(text)

    def fold(self, line: str) -> None:
        """Print a line in the place of the thinking."""
        with self._lock:
            self._thinking = ""
            self._next_drawing = 0.0
            self._anything_printed = True
            self._console.print(line, style="dim")

    def draw(self) -> None:
        """Bring what is not printed yet up to date on the screen."""
        with self._lock:
            self._live.refresh()

    def _watch(self) -> None:
        while not self._stop.wait(1 / FRAMES_PER_SECOND):
            self.draw()

    def _print(self, text: str) -> None:
        lines = self._lay_out(text)
        if lines:
            self._anything_printed = True
            self._console.print(_Lines(lambda: lines))

    def _frame(self) -> list[Line]:
        """Return the unfinished block and the status line, as tall as the screen allows."""
        width, height = self._console.size
        lines = self._unfinished_lines(width)
        if self._thinking:
            lines = self._thinking_lines(width, height)
        if self._activity.quiet:
            lines = [*lines, self._status_line(width)]
        return lines[-max(1, height - 2) :]

    def _status_line(self, width: int) -> Line:
        from rich.segment import Segment
        from rich.style import Style

        return [Segment(self._activity.line(width - 1), Style(dim=True))]

    def _thinking_lines(self, width: int, height: int) -> list[Line]:
        """Return the end of the thinking, a screen at most."""
        from rich.text import Text

        _, newline, end = self._thinking[-width * height :].partition("\n")
        if not newline or len(self._thinking) <= width * height:
            end = self._thinking[-width * height :]
        lines = self._console.render_lines(Text(end, style="dim"), pad=False)
        return [_without_padding(line) for line in lines]

    def _unfinished_lines(self, width: int) -> list[Line]:
        if not self._text:
            return []
        begun = time.perf_counter()
        drawn_text, drawn_width = self._drawn_of
        has_changed = self._text != drawn_text and begun >= self._next_drawing
        if has_changed or width != drawn_width:
            self._drawn_lines = self._lay_out(self._text)
            self._drawn_of = (self._text, width)
            now = time.perf_counter()
            self._next_drawing = begun + (now - begun) / self._drawing_share
        return self._drawn_lines

    def _lay_out(self, text: str) -> list[Line]:
        """Return the lines of blocks, an empty one before each that does not begin the screen."""
        lines: list[Line] = []
        for block in split_blocks(text):
            block_lines = self._console.render_lines(render_markdown(block), pad=False)
            trimmed = _trim([_without_padding(line) for line in block_lines])
            if trimmed and (lines or self._anything_printed):
                lines.append([])
            lines += trimmed
        return lines


def _trim(lines: list[Line]) -> list[Line]:
    """Return lines without the empty ones at the begin and the end."""
    filled = [number for number, line in enumerate(lines) if line]
    if not filled:
        return []
    return lines[filled[0] : filled[-1] + 1]


def _without_padding(line: Line) -> Line:
    """Return a line without blanks at its end: what is copied from the screen has none."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    if not line:
        return []
    *others, last = line
    return [*others, last._replace(text=last.text.rstrip())]


class _Lines:
    """Something for rich to print: lines that are laid out when they are wanted."""

    def __init__(self, lines: Callable[[], list[Line]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for line in self._lines():
            yield from line
            yield Segment.line()


def split_finished(text: str) -> tuple[str, str]:
    """Cut markdown before its last block; what comes before no longer changes, whatever follows.

    Only whole lines are looked at, since half of one may yet become anything.
    """
    whole_lines, _, unfinished_line = text.rpartition("\n")
    *finished, last = split_blocks(whole_lines)
    if not finished:
        return "", text
    return "\n".join(finished), f"{last}\n{unfinished_line}"


def split_blocks(text: str) -> list[str]:
    """Return the blocks of markdown: paragraphs, lists, code and so on; at least one."""
    begins = [
        token.map[0]
        for token in _parser().parse(text)
        # nesting -1 closes a block that has begun before
        if token.level == 0 and token.map and token.nesting >= 0
    ]
    lines = text.split("\n")
    cuts = [0, *begins[1:], len(lines)]
    return ["\n".join(lines[begin:end]) for begin, end in pairwise(cuts)]


def render_markdown(text: str) -> Markdown:
    """Return markdown as models mean it: line breaks are kept, and tags are shown, not obeyed."""
    rendered: Markdown = _markdown_class()(text, code_theme="ansi_dark", hyperlinks=False)
    rendered.parsed = _parser().parse(text)
    for block in rendered.parsed:
        for token in block.children or ():
            if token.type == "softbreak":
                token.type = "hardbreak"
    return rendered


@cache
def _markdown_class() -> type[Markdown]:
    """Return rich's markdown with headings on the left instead of in the middle."""
    from rich.markdown import Heading, Markdown

    class LeftHeading(Heading):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            self.text.justify = "left"
            yield self.text

    class LeftHeadingMarkdown(Markdown):
        elements: ClassVar = Markdown.elements | {"heading_open": LeftHeading}

    return LeftHeadingMarkdown


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
