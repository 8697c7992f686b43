"""``edgellm federate``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.cli.command_group import CommandEntry, CommandGroup, group_app


class FederateGroup(CommandGroup):
    """The commands of ``edgellm federate``."""

    package = "edgellm.cli.federate_commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        "server": CommandEntry(
            "Ask clients to learn, and average what they learned.",
            "edgellm federate server ./llama-1b ./together --clients 4 --rounds 10 "
            "--address 192.168.1.10",
        ),
        "client": CommandEntry(
            "Learn from this machine's records, which stay here.",
            "edgellm federate client ./llama-1b data.jsonl --invitation client-1.invitation",
        ),
    }


app: typer.Typer = group_app(
    FederateGroup,
    "Learn an adapter from data on several machines, which stay there.",
    example="edgellm federate server ./llama-1b ./together --clients 4 --rounds 10",
)
