"""Markdown that grows: what is finished is printed once, and only the unfinished end is drawn anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from edgellm.console.status_line import Activity

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import Markdown
    from rich.segment import Segment

FRAMES_PER_SECOND = 10
DRAWING_SHARE = 0.1
"""Of the time; at most so much may be spent on drawing, since drawing takes processor time from the model."""


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
            _Lines(self._frame),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._draw_now_and_then, name="edgellm-drawing", daemon=True
        )

    def __enter__(self) -> MarkdownAnswer:
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
        # or the screen would be drawn between taking a block from the end and printing it
        with self._lock:
            self._text += text
            finished, rest = finished_blocks(self._text) if "\n" in text else ("", "")
            if finished:
                # what was drawn still shows the finished blocks
                self._text, self._next_drawing = rest, 0.0
                self._print(finished)

    def draw(self) -> None:
        """Bring what is not printed yet up to date on the screen."""
        with self._lock:
            self._live.refresh()

    def _draw_now_and_then(self) -> None:
        while not self._stop.wait(1 / FRAMES_PER_SECOND):
            self.draw()

    def _print(self, text: str) -> None:
        lines = self._laid_out(text)
        if lines:
            self._printed = True
            self._console.print(_Lines(lambda: lines))

    def _frame(self) -> list[list[Segment]]:
        """The unfinished block and the status line, as tall as the screen allows."""
        width, height = self._console.size
        lines = self._tail(width)
        if self._activity.quiet:
            lines = [*lines, self._status(width)]
        return lines[-max(1, height - 2) :]

    def _status(self, width: int) -> list[Segment]:
        from rich.segment import Segment
        from rich.style import Style

        return [Segment(self._activity.line(width - 1), Style(dim=True))]

    def _tail(self, width: int) -> list[list[Segment]]:
        text, now = self._text, time.perf_counter()
        if (text, width) != self._drawn[:2] and (
            now >= self._next_drawing or width != self._drawn[1]
        ):
            self._drawn = (text, width, self._laid_out(text))
            self._next_drawing = now + (time.perf_counter() - now) / DRAWING_SHARE
        return self._drawn[2] if text else []

    def _laid_out(self, text: str) -> list[list[Segment]]:
        """The lines of some blocks, an empty one between them and before the first if others stand above."""
        lines: list[list[Segment]] = []
        for block in blocks(text):
            drawn = [
                _stripped(line) for line in self._console.render_lines(markdown(block), pad=False)
            ]
            filled = [number for number, line in enumerate(drawn) if line]
            if filled:
                above: list[list[Segment]] = [[]] if lines or self._printed else []
                lines += above + drawn[filled[0] : filled[-1] + 1]
        return lines


def _stripped(line: list[Segment]) -> list[Segment]:
    """A line without the blanks that fill it up: what is copied from the screen has none."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return [*line[:-1], line[-1]._replace(text=line[-1].text.rstrip())] if line else []


class _Lines:
    """Lines that are laid out when they are wanted."""

    def __init__(self, lines: Callable[[], list[list[Segment]]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for line in self._lines():
            yield from line
            yield Segment.line()


def finished_blocks(text: str) -> tuple[str, str]:
    """Cut markdown before its last block: what comes before it no longer changes, whatever follows.

    Only whole lines are looked at, since half of one may yet become anything.
    """
    whole, _, line = text.rpartition("\n")
    *finished, last = blocks(whole)
    if not finished:
        return "", text
    return "\n".join(finished), f"{last}\n{line}"


def blocks(text: str) -> list[str]:
    """The blocks that markdown consists of: paragraphs, lists, code and so on; there is at least one."""
    tokens = _parser().parse(text)
    begins = [
        token.map[0] for token in tokens if token.level == 0 and token.map and token.nesting >= 0
    ]
    lines = text.split("\n")
    cuts = [0, *begins[1:], len(lines)]
    return ["\n".join(lines[begin:end]) for begin, end in pairwise(cuts)]


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
