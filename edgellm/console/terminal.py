"""The two streams: standard output is data; all else, errors too, goes to standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgellm.errors import EdgeLLMError

if TYPE_CHECKING:
    from rich.console import Console


def prepare_streams() -> None:
    """Make the streams take any text, also where they are closed or know few characters."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed before the program began
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def out() -> Console:
    """Return standard output, for tables and completions."""
    return _console(stderr=False)


def err() -> Console:
    """Return standard error, for everything else."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console
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
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, theme=theme)


def is_terminal(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal; a closed one is none."""
    return not stream.closed and stream.isatty()


def write(text: str) -> None:
    """Write text to standard output, and send it at once.

    Raises:
        SystemExit: the reader has gone away; there is nobody to tell.
        EdgeLLMError: standard output cannot be written, for instance to a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _discard_output()
        # EINVAL: a broken pipe on Windows
        if isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL:
            raise SystemExit(1) from error
        raise EdgeLLMError(f"standard output cannot be written: {error.strerror}") from error


def write_json(document: Any, *, line: bool = False) -> None:
    """Write a JSON document to standard output; in one line if others follow."""
    indent = None if line else 2
    write(json.dumps(document, indent=indent, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Say something in passing, on standard error."""
    print_error_stream(text, style="dim")


def print_error_stream(text: Any, style: str | None = None) -> None:
    """Print to standard error: wrapped between words on a terminal, whole lines elsewhere."""
    console = err()
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def _discard_output() -> None:
    """Point standard output at nothing, or the interpreter would fail again when it flushes it."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):  # a stream without a file beneath has nothing to flush
        return
