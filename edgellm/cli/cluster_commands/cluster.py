"""``edgellm cluster``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.cli.command_group import EXAMPLE, HELP_OPTIONS, CommandEntry, CommandGroup


class ClusterGroup(CommandGroup):
    """The commands of ``edgellm cluster``."""

    package = "edgellm.cli.cluster_commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        "join": CommandEntry(
            "Let this machine compute layers for another one.",
            "edgellm cluster join ./llama-7b --address 192.168.1.11 --memory 4GB",
        ),
        "start": CommandEntry(
            "Make a secret, and start the other machines by ssh.",
            "edgellm cluster start ./llama-7b hosts.json",
        ),
        "status": CommandEntry(
            "Show which machines are there.", "edgellm cluster status hosts.json"
        ),
    }


app: typer.Typer = typer.Typer(
    cls=ClusterGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": HELP_OPTIONS},
)


@app.callback(epilog=EXAMPLE + "edgellm chat ./llama-7b --machines hosts.json")
def cluster() -> None:
    """Let several machines compute a model together."""
