"""Options that commands for adapters share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common.values import one_of

FORMS = ("peft", "mlx-lm")

Out = Annotated[Path, Argument(metavar="OUT", help="The folder of the new adapter.")]
Form = Annotated[
    str,
    Option(
        "--format",
        metavar="peft|mlx-lm",
        help="Who opens the adapter.",
        autocompletion=one_of("peft|mlx-lm"),
        rich_help_panel=headings.OUTPUT,
    ),
]
Force = Annotated[
    bool,
    Option("--force", help="Replace an adapter that is there.", rich_help_panel=headings.OUTPUT),
]
