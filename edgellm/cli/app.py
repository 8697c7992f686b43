"""The command line: its entry point, and the table of its commands."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from edgellm.cli.command_group import Commands, UsageError, renamed_usage_error
from edgellm.cli.commands import chat as talking
from edgellm.cli.commands import convert as making
from edgellm.cli.commands import plan as looking
from edgellm.console import terminal
from edgellm.errors import EdgeLLMError

INTERRUPTED = 130
EXAMPLE = "\b\nExample:\n  "
"""Begins what help says at its end; the first line forbids to break the others."""

app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (the process's own where none is given), and return its exit code."""
    terminal.prepare_streams()
    with warnings.catch_warnings():
        warnings.showwarning = terminal.show_warning
        return _ended(arguments)


def _ended(arguments: Sequence[str] | None) -> int:
    """The exit code of a command line, its errors shown."""
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except EdgeLLMError as error:
        terminal.show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        terminal.show_interrupted()
    return code


def _run(arguments: list[str]) -> int:
    try:
        return int(app(arguments or ["--help"], prog_name="edgellm", standalone_mode=False) or 0)
    except UsageError as error:
        raise renamed_usage_error(error) from error


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        terminal.write(f"edgellm {version('edgellm')}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Language models on the machine in front of you, also those larger than its memory."""


app.command(epilog=EXAMPLE + "edgellm chat mlx-community/Llama-3.2-1B-Instruct-4bit --memory 4GB")(
    talking.chat
)
app.command(
    epilog=EXAMPLE + 'edgellm generate stories --prompt "Once upon a time" --max-tokens 100'
)(talking.generate)
app.command(
    short_help="Make a model folder of any model.",
    epilog=EXAMPLE + "edgellm convert meta-llama/Llama-3.2-1B-Instruct ./llama-1b --bits 4",
)(making.convert)
app.command(
    short_help="Write a model as a GGUF file.",
    epilog=EXAMPLE + "edgellm export ./llama-1b llama-1b.gguf",
)(making.export)
app.command(
    short_help="Make a model of random weights, to measure a machine.",
    epilog=EXAMPLE + "edgellm synth llama-2-7b ./llama-7b --bits 4",
)(making.synth)
app.command(
    short_help="Show what a budget of memory buys.",
    epilog=EXAMPLE + "edgellm plan mlx-community/Meta-Llama-3.1-8B-Instruct-4bit --memory 4GB",
)(looking.plan)
app.command(epilog=EXAMPLE + "edgellm info stories")(looking.info)
app.command(
    short_help="Check that a model is whole and computes.",
    epilog=EXAMPLE + "edgellm verify ./llama-1b",
)(looking.verify)
app.command(short_help="Look this machine over.", epilog=EXAMPLE + "edgellm doctor ~/models")(
    looking.doctor
)
