"""``edgellm bench``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.bench.command_group import DEFAULT, ModelGroup
from edgellm.cli.command_group import CommandEntry, group_app


class BenchGroup(ModelGroup):
    """The commands of ``edgellm bench``."""

    package = "edgellm.bench.commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        DEFAULT: CommandEntry(hidden=True),
        "disk": CommandEntry(
            "Measure how fast the disk reads.",
            "edgellm bench disk ./llama-7b --threads 1,4 --chunk 1MiB,8MiB",
        ),
        "paging": CommandEntry(
            "Measure a model in memory budgets.",
            "edgellm bench paging ./llama-7b --memory 1GB,2GB,3GB",
        ),
        "serve": CommandEntry(
            "Load servers with many users at once.",
            "edgellm bench serve http://localhost:8080 --users 1,8,32 --output load.html",
        ),
        "train": CommandEntry(
            "Measure what techniques of training cost.",
            "edgellm bench train stories --technique lora,qlora --output training.html",
        ),
        "queries": CommandEntry(
            "Ask models the same questions with several numbers of threads.",
            "edgellm bench queries stories ./llama-1b --threads 1,2,4,8 --output answers.json",
        ),
        "rate": CommandEntry(
            "Score the answers to those questions.",
            "edgellm bench rate answers.json --judge http://localhost:8080/v1",
        ),
        "compare": CommandEntry(
            "Compare result files.",
            "edgellm bench compare mac.json server.json",
            target="edgellm.bench.result_commands.compare:compare",
        ),
        "report": CommandEntry(
            "Make one page from result files.",
            "edgellm bench report mac.json server.json --html both.html",
            target="edgellm.bench.result_commands.report:report",
        ),
        "parity": CommandEntry(
            "Compare the probabilities of models or backends.",
            "edgellm bench parity ./llama-1b ./llama-1b-4bit",
        ),
        "ablate": CommandEntry(
            "Measure what each optimization is worth.",
            "edgellm bench ablate ./llama-7b --memory 2GB",
        ),
    }


app: typer.Typer = group_app(
    BenchGroup,
    "Benchmark this machine and models on it.",
    example="edgellm bench stories --threads 1,2 --output report.html",
)
