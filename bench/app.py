"""``edgellm bench``: the table of its commands; each lives with others that do the like."""

from __future__ import annotations

import typer

from edgellm.bench.command_group import DEFAULT, ModelGroup
from edgellm.bench.commands import (
    ablate as leaving,
)
from edgellm.bench.commands import (
    compare as comparing,
)
from edgellm.bench.commands import (
    disk as measuring,
)
from edgellm.bench.commands import (
    parity as agreeing,
)
from edgellm.bench.commands import (
    queries as asking,
)
from edgellm.bench.commands import (
    run as running,
)

app = typer.Typer(
    cls=ModelGroup, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)

EXAMPLE = "\b\nExample:\n  "


@app.callback(epilog=EXAMPLE + "edgellm bench stories --threads 1,2 --output report.html")
def bench() -> None:
    """Measure this machine, and models on it."""


app.command(DEFAULT, hidden=True)(running.run)
app.command(
    short_help="Measure what the disk gives.",
    epilog=EXAMPLE + "edgellm bench disk ./llama-7b --threads 1,4 --chunk 1MiB,8MiB",
)(measuring.disk)
app.command(
    short_help="Measure a model inside budgets of memory.",
    epilog=EXAMPLE + "edgellm bench paging ./llama-7b --memory 1GB,2GB,3GB",
)(measuring.paging)
app.command(
    short_help="Ask models questions on several numbers of threads.",
    epilog=EXAMPLE
    + "edgellm bench queries stories ./llama-1b --threads 1,2,4,8 --output answers.json",
)(asking.queries)
app.command(
    short_help="Score the answers to those questions.",
    epilog=EXAMPLE + "edgellm bench rate answers.json --judge http://localhost:8080/v1",
)(asking.rate)
app.command(
    short_help="Put result files beside each other.",
    epilog=EXAMPLE + "edgellm bench compare mac.json server.json",
)(comparing.compare)
app.command(
    short_help="Make one page of result files.",
    epilog=EXAMPLE + "edgellm bench report mac.json server.json --html both.html",
)(comparing.report)
app.command(
    short_help="Compare what models or backends say.",
    epilog=EXAMPLE + "edgellm bench parity stories --backend mlx,cpu --activations float",
)(agreeing.parity)
app.command(
    short_help="Measure what each part is worth.",
    epilog=EXAMPLE + "edgellm bench ablate ./llama-7b --memory 2GB",
)(leaving.ablate)
