"""``edgellm eval``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.bench.command_group import DEFAULT, ModelGroup
from edgellm.cli.command_group import CommandEntry, group_app


class EvalGroup(ModelGroup):
    """The commands of ``edgellm eval``."""

    package = "edgellm.bench.eval_commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        DEFAULT: CommandEntry(hidden=True),
        "compare": CommandEntry(
            "Pair the answers in result files, question by question.",
            "edgellm eval compare eval-mac.json eval-server.json",
        ),
    }


app: typer.Typer = group_app(
    EvalGroup,
    "Ask models the same questions, and say how sure a difference is.",
    example="edgellm eval ./llama-1b ./llama-1b-4bit --task tickets.jsonl",
)
