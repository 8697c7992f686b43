"""Prints the command-line reference: `python scripts/cli_reference.py > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from edgellm.cli.app import app
from edgellm.cli.command_group import EXAMPLE, CommandGroup
from edgellm.cli.headings import OTHER, place

INTRODUCTION = Path(__file__).with_suffix(".md")
"""The text above the commands."""


def reference() -> str:
    """Return the whole page."""
    introduction = INTRODUCTION.read_text(encoding="utf-8")
    return "\n".join([introduction, *_group_sections("edgellm", get_command(app))])


def _group_sections(name: str, group: Any) -> Iterator[str]:
    """Yield the text of each command of a group."""
    context = group.make_context(name, [], resilient_parsing=True)
    for word in group.table:
        command = group.get_command(context, word)
        # hidden: what the group does by itself
        full_name = name if command.hidden else f"{name} {word}"
        yield _section(full_name, command)
        if isinstance(command, CommandGroup):
            yield from _group_sections(full_name, command)


def _section(name: str, command: Any) -> str:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [
        item
        for item in command.params
        if item.param_type_name == "option" and item.name != "help" and not item.hidden
    ]
    usage = [name, *map(_usage, arguments)]
    if options:
        usage.append("[options]")
    lines = [f"## `{' '.join(usage)}`", "", *_paragraphs(command.help or ""), ""]
    if arguments or options:
        lines += ["| | | default |", "|---|---|---|", *_rows([*arguments, *options])]
        lines.append("")
    example = (command.epilog or "").removeprefix(EXAMPLE)
    if example:
        lines += ["```console", f"$ {example}", "```", ""]
    return "\n".join(lines)


def _rows(items: list[Any]) -> Iterator[str]:
    """Yield the rows of arguments and options, under their headings as help has them."""
    last = None
    for item in sorted(items, key=lambda item: place(item.rich_help_panel or OTHER)):
        heading = item.rich_help_panel
        if heading != last:
            yield f"| **{heading or OTHER}** | | |"
        last = heading
        yield f"| `{_name(item)}` | {item.help or ''} | {_default(item)} |"


def _usage(argument: Any) -> str:
    name = _name(argument)
    if argument.required or name.startswith("["):
        return name
    return f"[{name}]"


def _paragraphs(text: str) -> list[str]:
    """Return each paragraph as one line, with an empty one between them."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(paragraphs).splitlines()


def _name(item: Any) -> str:
    if item.param_type_name == "argument":
        return str(item.metavar or item.name.upper())
    name = ", ".join(sorted(item.opts, key=len, reverse=True))
    if not item.is_flag:
        name += f" {item.metavar or 'VALUE'}"
    return name.replace("|", "\\|")


def _default(item: Any) -> str:
    # not `in`: 0 is a default and equals False
    if item.default is None or item.default is False or item.default == "":
        return ""
    return f"`{item.default}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
