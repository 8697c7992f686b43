"""The commands that make model folders: ``convert`` and ``synth``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm import options
from edgellm.backend import require_backend
from edgellm.console import terminal


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A Hub id, or a folder or file in a format that is known.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to be made.")],
    *,
    bits: Annotated[
        int | None,
        typer.Option(metavar="2|3|4|5|6|8|16", help="Bits of a weight; left out: 4, or as it is for a quantized source."),
    ] = None,
    group_size: Annotated[int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float16|bfloat16|float32", help="What is not quantized; left out: as in the source."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Measure and list the error of each quantized matrix.")] = False,
    json: options.Json = False,
) -> None:
    """Convert a model into a folder that edgellm and mlx-lm open; a conversion that was stopped goes on."""
    require_backend()
    from edgellm import converters
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.info import conversion_facts

    with conversion() as progress:
        made = converters.convert(
            source, destination, bits=bits, group_size=group_size, dtype=dtype, force=force, report=report, progress=progress
        )
    if json:
        terminal.write_json(conversion_facts(made))
    else:
        tables.show_conversion(made)


def synth(
    shape: Annotated[str, typer.Argument(metavar="SHAPE", help="A published model's: llama-2-7b, llama-3.2-1b, qwen3-8b, ...")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to be made.")],
    *,
    bits: Annotated[
        int | None, typer.Option(metavar="2|3|4|5|6|8|16", help="Bits of a weight, 16 for unquantized; left out: 4.")
    ] = None,
    group_size: Annotated[int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float16|bfloat16|float32", help="What is not quantized; left out: as published."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed makes the same weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    json: options.Json = False,
) -> None:
    """Make a model folder of a known shape with random weights, to measure a machine before anything is downloaded."""
    require_backend()
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.info import conversion_facts
    from edgellm.quant import DEFAULT_BITS
    from edgellm.synth import synthesize

    with conversion() as progress:
        made = synthesize(
            shape,
            destination,
            bits=bits or DEFAULT_BITS,
            group_size=group_size,
            dtype=dtype,
            seed=seed,
            force=force,
            progress=progress,
        )
    if json:
        terminal.write_json(conversion_facts(made))
    else:
        tables.show_conversion(made)
