"""``edgellm cluster``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.cli.command_group import CommandEntry, CommandGroup, group_app


class ClusterGroup(CommandGroup):
    """The commands of ``edgellm cluster``."""

    package = "edgellm.cli.cluster_commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        "join": CommandEntry(
            "Let this machine compute layers for another one.",
            "edgellm cluster join ./llama-7b --address 192.168.1.11 --memory 4GB",
        ),
        "part": CommandEntry(
            "Write some layers of a model into a folder to be carried to another machine.",
            "edgellm cluster part ./llama-7b ./upper-half --layers 16-31",
        ),
        "start": CommandEntry(
            "Make a secret, and start the other machines by ssh.",
            "edgellm cluster start ./llama-7b hosts.json",
        ),
        "status": CommandEntry(
            "Show which machines are there.", "edgellm cluster status hosts.json"
        ),
    }


app: typer.Typer = group_app(
    ClusterGroup,
    "Let several machines compute a model together.",
    example="edgellm chat ./llama-7b --machines hosts.json",
)
