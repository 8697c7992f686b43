"""The two streams. Standard output is data; everything else, errors too, goes to standard error."""

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
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def out() -> Console:
    """Standard output, for tables and answers."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error, for everything else."""
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
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, theme=theme)


def is_terminal(stream: IO[str]) -> bool:
    """Whether a stream is a terminal; a closed one is none."""
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
        _forget_output()
        if isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL:
            raise SystemExit(1) from error
        raise EdgeLLMError(f"standard output cannot be written: {error.strerror}") from error


def write_json(document: Any, *, line: bool = False) -> None:
    """Write one JSON document to standard output; ``line``: in one line, since others follow."""
    write(json.dumps(document, indent=None if line else 2, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Say something in passing, on standard error."""
    console = err()
    console.print(text, style="dim", soft_wrap=not console.is_terminal)


def show_error(error: EdgeLLMError) -> None:
    """Write a fact, and after a blank line the next step, to standard error."""
    console = err()
    whole = not console.is_terminal
    console.print(_labelled("error: ", error.message, "bold red"), soft_wrap=whole)
    if error.hint:
        console.print()
        console.print(_labelled("hint: ", error.hint, "bold cyan"), soft_wrap=whole)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Write a warning to standard error: in place of Python's own form, which tells where in the program it came from."""
    console = err()
    console.print(
        _labelled("warning: ", str(message), "bold yellow"), soft_wrap=not console.is_terminal
    )


def show_interrupted() -> None:
    """Say that the person stopped it."""
    err().print("interrupted", style="dim")


def _labelled(label: str, text: str, style: str) -> Any:
    from rich.text import Text

    return Text.assemble((label, style), text)


def _forget_output() -> None:
    """Point standard output at nothing, so that the interpreter does not fail again when it flushes at its end."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):  # a stream without a file beneath has nothing to flush
        return
