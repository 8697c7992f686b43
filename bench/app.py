"""``edgellm bench``: the table of its commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import typer

from edgellm.bench.command_group import DEFAULT, ModelGroup
from edgellm.cli.command_group import EXAMPLE, CommandEntry


class BenchGroup(ModelGroup):
    """The commands of ``edgellm bench``."""

    package = "edgellm.bench.commands"
    table: ClassVar[Mapping[str, CommandEntry]] = {
        DEFAULT: CommandEntry(hidden=True),
        "disk": CommandEntry(
            "Measure what the disk gives.",
            "edgellm bench disk ./llama-7b --threads 1,4 --chunk 1MiB,8MiB",
        ),
        "paging": CommandEntry(
            "Measure a model inside budgets of memory.",
            "edgellm bench paging ./llama-7b --memory 1GB,2GB,3GB",
        ),
        "queries": CommandEntry(
            "Ask models questions on several numbers of threads.",
            "edgellm bench queries stories ./llama-1b --threads 1,2,4,8 --output answers.json",
        ),
        "rate": CommandEntry(
            "Score the answers to those questions.",
            "edgellm bench rate answers.json --judge http://localhost:8080/v1",
        ),
        "compare": CommandEntry(
            "Put result files beside each other.", "edgellm bench compare mac.json server.json"
        ),
        "report": CommandEntry(
            "Make one page of result files.",
            "edgellm bench report mac.json server.json --html both.html",
        ),
        "parity": CommandEntry(
            "Compare what models or backends say.",
            "edgellm bench parity ./llama-1b ./llama-1b-4bit",
        ),
        "ablate": CommandEntry(
            "Measure what each part is worth.", "edgellm bench ablate ./llama-7b --memory 2GB"
        ),
    }


app: typer.Typer = typer.Typer(
    cls=BenchGroup, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)


@app.callback(epilog=EXAMPLE + "edgellm bench stories --threads 1,2 --output report.html")
def bench() -> None:
    """Measure this machine, and models on it."""
