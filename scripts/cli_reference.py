"""Prints the reference of the command line as markdown: `python scripts/cli_reference.py > docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from edgellm.cli.app import app
from edgellm.cli.command_group import Commands

INTRODUCTION = Path(__file__).with_suffix(".md")
"""What stands above the commands."""


def reference() -> str:
    """The whole page."""
    group = get_command(app)
    assert isinstance(group, Commands)
    context = group.make_context("edgellm", [], resilient_parsing=True)
    names = group.list_commands(context)
    sections = [INTRODUCTION.read_text(encoding="utf-8")]
    for name in names:
        command = (
            group.imported(name) if name in group.elsewhere else group.get_command(context, name)
        )
        sections += _sections(f"edgellm {name}", command)
    return "\n".join(sections)


def _sections(name: str, command: Any) -> Iterator[str]:
    """The text of a command, and of the commands in it."""
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [
        item
        for item in command.params
        if item.param_type_name == "option" and item.name != "help" and not item.hidden
    ]
    usage = " ".join(
        [name, *(_usage(item) for item in arguments), *(["[options]"] if options else [])]
    )
    lines = [f"## `{usage}`", "", *_paragraphs(command.help or ""), ""]
    if arguments or options:
        lines += ["| | | default |", "|---|---|---|"]
        lines += [
            f"| `{_name(item)}` | {item.help or ''} | {_default(item)} |"
            for item in [*arguments, *options]
        ]
        lines.append("")
    example = (command.epilog or "").replace("\b\nExample:\n", "").strip()
    if example:
        lines += ["```console", f"$ {example}", "```", ""]
    yield "\n".join(lines)
    for inner, nested in getattr(command, "commands", {}).items():
        # hidden: what the group does by itself
        yield from _sections(name if nested.hidden else f"{name} {inner}", nested)


def _usage(argument: Any) -> str:
    name = _name(argument)
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _name(item: Any) -> str:
    if item.param_type_name == "argument":
        return str(item.metavar or item.name.upper())
    names = ", ".join(sorted(item.opts, key=len, reverse=True))
    value = "" if item.is_flag else f" {item.metavar or 'VALUE'}"
    return f"{names}{value}".replace("|", "\\|")


def _default(item: Any) -> str:
    if item.default is None or item.default is False or item.default == "":
        return ""
    return f"`{item.default}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
