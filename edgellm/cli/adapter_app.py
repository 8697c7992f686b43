"""``edgellm adapter``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.cli.command_group import CommandEntry, CommandGroup, group_app


class AdapterGroup(CommandGroup):
    """The commands of ``edgellm adapter``."""

    package = "edgellm.cli.adapter_commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        "info": CommandEntry(
            "Show what an adapter changes, and by how much.", "edgellm adapter info ./tuning"
        ),
        "svd": CommandEntry(
            "Show which rank a matrix, a change or an adapter needs.",
            "edgellm adapter svd ./tuned --base ./llama-1b --matrix '*.q_proj'",
        ),
        "extract": CommandEntry(
            "Make an adapter of what a tuned model has more than its base.",
            "edgellm adapter extract ./tuned ./llama-1b ./extracted --rank 16",
        ),
        "merge": CommandEntry(
            "Add two adapters of one base.", "edgellm adapter merge ./tuning ./style ./both"
        ),
        "convert": CommandEntry(
            "Write an adapter for PEFT, mlx-lm or llama.cpp.",
            "edgellm adapter convert ./tuning ./tuning-mlx --format mlx-lm",
        ),
    }


app: typer.Typer = group_app(
    AdapterGroup,
    "Look at adapters, take them out of tuned models, add them, and write them in other forms.",
    example="edgellm adapter info ./tuning",
)
