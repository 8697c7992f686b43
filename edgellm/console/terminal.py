"""The two streams: standard output is data; all else, errors too, goes to standard error.

What others wrote, a model or its files, is shown on a terminal and never obeyed: here its controls
are escaped, and a pipe gets it as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from edgellm.console.streams import is_terminal
from edgellm.errors import LONE_SURROGATES, escape_controls

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *LONE_SURROGATES)}
"""What ``json`` leaves as it is, and a terminal obeys or no encoding has."""


def out() -> Console:
    """Return standard output, for tables and completions."""
    return _console(stderr=False)


def err() -> Console:
    """Return standard error, for everything else."""
    return _console(stderr=True)


def shown(text: str, stream: IO[str]) -> str:
    """Return text as a stream may be given it: on a terminal, with its controls escaped."""
    if is_terminal(stream):
        return escape_controls(text)
    return text


def write(text: str) -> None:
    """Write text to standard output, and send it at once."""
    sys.stdout.write(shown(text, sys.stdout))
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Write lines to standard output, and send them at once."""
    write(f"{text}\n")


def write_json(document: Any, *, line: bool = False) -> None:
    """Write a JSON document to standard output; in one line if others follow."""
    indent = None if line else 2
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    write_line(text.translate(_JSON_ESCAPES))


def note(text: str) -> None:
    """Say something in passing, on standard error."""
    print_error_stream(text, style="dim")


def say(text: str, *, end: str = "\n") -> None:
    """Write text to standard error, in lines of its own and not dimmed as a note is."""
    sys.stderr.write(shown(text + end, sys.stderr))
    sys.stderr.flush()


def print_error_stream(text: Any, style: str | None = None) -> None:
    """Print to standard error: wrapped between words on a terminal, whole lines elsewhere."""
    console = err()
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def _console(*, stderr: bool) -> Console:
    from rich.theme import Theme

    # Inline code and headings without a background of their own, which a light terminal would show
    # as black bars.
    theme = Theme(
        {
            "markdown.code": "bold cyan",
            "markdown.code_block": "cyan",
            "markdown.h1": "bold underline",
        }
    )
    # Without markup: what a stranger wrote, in an error or a name, must not style the screen.
    return _console_class()(stderr=stderr, markup=False, emoji=False, highlight=False, theme=theme)


@cache
def _console_class() -> type[Console]:
    """Return rich's console, which lets no controls through but its own."""
    from rich.console import Console

    class EscapingConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            # before lines are broken, so that they fit
            return super().render_str(self._shown(text), **options)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield segment._replace(text=self._shown(segment.text))

        def _shown(self, text: str) -> str:
            # is_terminal: also what is asked to be coloured like one; the file: also a dumb one
            if self.is_terminal or is_terminal(self.file):
                return escape_controls(text)
            return text

    return EscapingConsole
