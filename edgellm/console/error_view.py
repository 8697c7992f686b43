"""Errors and warnings, as standard error shows them: a fact, and a next step."""

from __future__ import annotations

from edgellm.console.terminal import err, print_error_stream
from edgellm.errors import EdgeLLMError, escape_controls


def show_error(error: EdgeLLMError) -> None:
    """Write a fact, and after a blank line the next step, to standard error."""
    _print_labelled("error: ", error.message, "bold red")
    if error.hint:
        err().print()
        _print_labelled("hint: ", error.hint, "bold cyan")


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Write a warning to standard error, in place of ``warnings.showwarning``.

    Python's own form tells where in the program it came from.
    """
    _print_labelled("warning: ", escape_controls(str(message)), "bold yellow")


def show_interrupted() -> None:
    """Say that Ctrl-C has ended the program."""
    err().print("interrupted", style="dim")


def _print_labelled(label: str, text: str, style: str) -> None:
    from rich.text import Text

    print_error_stream(Text.assemble((label, style), text))
