"""``edgellm adapter convert``: an adapter for PEFT, mlx-lm or llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.adapter_commands import adapter_options
from edgellm.cli.common import options
from edgellm.cli.common.values import one_of
from edgellm.console import terminal

FORMS = (*adapter_options.FORMS, "gguf")


def convert(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="A folder of PEFT's or mlx-lm's.")],
    out: Annotated[
        Path, Argument(metavar="OUT", help="The folder of the new adapter, or its GGUF file.")
    ],
    *,
    form: Annotated[
        str,
        Option(
            "--format",
            metavar="peft|mlx-lm|gguf",
            help="Who opens the adapter; gguf: llama.cpp, with --lora.",
            autocompletion=one_of("peft|mlx-lm|gguf"),
            rich_help_panel=headings.OUTPUT,
        ),
    ],
    base: Annotated[
        str | None,
        Option(
            metavar="MODEL",
            help="The model that the adapter belongs to; default: the one that it names.",
        ),
    ] = None,
    force: adapter_options.Force = False,
    json: options.Json = False,
) -> None:
    """Write an adapter in another form.

    Numbers keep type and value; mlx-lm has one rank and one scale, so lower ranks are filled with
    zeros there, and scales that differ go into a factor.
    """
    from edgellm.console.units import plural, size
    from edgellm.low_rank.conversion import convert_adapter
    from edgellm.setting_values import choice

    chosen = choice("format", form, FORMS)
    made = convert_adapter(folder, out, form=chosen, base=base, force=force)
    if json:
        terminal.write_json(made.facts())
        return
    terminal.note(f"{made.path}: {plural(made.changes, 'change')}, {size(made.nbytes)}")
