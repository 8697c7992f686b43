"""``edgellm export``: a model as one GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend


def export(
    model: options.Model,
    destination: Annotated[Path, Argument(metavar="DEST.gguf", help="The file to write.")],
    *,
    adapter: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="A LoRA adapter to merge; what it changes is unquantized in the file.",
            rich_help_panel=headings.MERGING,
        ),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace a file that is already there.")] = False,
    json: options.Json = False,
) -> None:
    """Write a model as one GGUF file, which llama.cpp opens: 4, 5 and 8 bits as Q4_1, Q5_1 and
    Q8_0, mxfp4 and nvfp4 as they are, others as F16.

    Codes of 4 and 5 bits are kept, of 1 and 2 bits where they are signed (Q1_0, Q2_0); what changes
    (8-bit weights with a bias of their own do) is listed with its error, and where llama.cpp will
    cut a text otherwise is said.

    With --adapter, how much of its change is left is said; edgellm adapter convert --format gguf
    makes a small file for llama.cpp's --lora instead, beside the codes as they are.
    """
    require_backend()
    from edgellm import converters
    from edgellm.console.progress import show_converting
    from edgellm.console.tables import conversion_table
    from edgellm.diagnostics.facts import export_facts

    with show_converting() as progress:
        made = converters.export(
            model, destination, adapter=adapter, force=force, progress=progress
        )
    if json:
        terminal.write_json(export_facts(made))
    else:
        conversion_table.show_export(made)
