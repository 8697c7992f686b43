"""A command: its words as they are typed, and its help in groups."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from edgellm.cli.headings import OTHER, place
from edgellm.cli.parsing.peer_options import our_words
from edgellm.cli.parsing.plain_values import convert_plain_values

RANGE = re.compile(r"  \[x>=[\d.]+\]$|; x>=[\d.]+(?=\]$)")
"""Typer's words for the least value of an option; an error tells it in ours."""

WIDEST = 100
"""Columns of help on a wide terminal: longer lines are hard to read."""

NARROW = 70
"""Columns below which descriptions get more of the line than names."""


class EdgellmCommand(TyperCommand):
    """A command of ours; what typer calls a help panel is a heading of its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the words. Raises ConfigError where an option's value is missing."""
        if ctx.resilient_parsing:
            leave_values(self.get_params(ctx))
        else:
            args = our_words(args, self.get_params(ctx), ctx.command_path)
            convert_plain_values(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the options that begin with what was typed."""
        return without_help(super().shell_complete(ctx, incomplete))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the arguments, then that options may follow."""
        return [*map(argument_name, arguments_of(self)), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options under their headings, in the order of the command."""
        write_parameters(self.get_params(ctx), ctx, formatter)


def write_parameters(parameters: list[Any], ctx: Any, formatter: Any) -> None:
    """Write typer's arguments and options under their headings, in their order."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        name, description = record
        description = RANGE.sub("", description)
        heading = OTHER
        if parameter.param_type_name == "argument":
            name, heading = parameter.metavar, "Arguments"
            description = description.removesuffix("  [required]")
        heading = parameter.rich_help_panel or heading
        sections.setdefault(heading, []).append((name, description))
    column = 30
    if formatter.width < NARROW:
        column = 20
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    column = min(column, width)
    for heading in sorted(sections, key=place):
        with formatter.section(heading):
            rows = [(name.ljust(column), text) for name, text in sections[heading]]
            formatter.write_dl(rows, col_max=column)


def without_help(items: list[Any]) -> list[Any]:
    """Return a shell's completions without descriptions.

    Typer imports rich to write those, and wraps long ones into lines that fish takes for further
    completions.
    """
    for item in items:
        item.help = None
    return items


def leave_values(parameters: list[Any]) -> None:
    """Let values be what was typed: a shell completes, and typer's checks take long to import."""
    for parameter in parameters:
        parameter.process_value = _as_typed


def _as_typed(_: Any, value: Any) -> Any:
    return value


def arguments_of(command: Any) -> list[Any]:
    """Return typer's arguments of a command."""
    return [item for item in command.params if item.param_type_name == "argument"]


def argument_name(argument: Any) -> str:
    """Return an argument as a usage line has it: in brackets where it may be left out."""
    name = str(argument.metavar)
    if argument.required or name.startswith("["):
        return name
    return f"[{name}]"
