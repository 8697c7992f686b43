"""The commands that make model folders, and files of them for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A Hub id, or a folder or file in a format that is known."
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="The model folder to be made.")
    ],
    *,
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="2|3|4|5|6|8|16",
            help="Bits of a weight; left out: 4, or as it is for a quantized source.",
        ),
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float16|bfloat16|float32",
            help="What is not quantized; left out: as in the source.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="uniform|mixed",
            help="mixed: more bits for the matrices that need them, as is measured.",
        ),
    ] = None,
    average_bits: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Of a weight in a mixed recipe, scales counted; left out: 4.5."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The text that a mixed recipe is measured on; left out: a short one of ours.",
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A LoRA adapter, PEFT's or mlx-lm's, to be merged into the model.",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A tokenizer's file or folder, in place of the source's own."
        ),
    ] = None,
    upload: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Then upload it to the Hub, with a model card."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a model that is already there.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Measure and list the error of each quantized matrix.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Convert a model into a folder that edgellm and mlx-lm open; a conversion that was stopped goes on."""
    require_backend()
    from edgellm import converters
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.diagnostics.facts import conversion_facts
    from edgellm.hub.model_card import model_card
    from edgellm.hub.resolve import bundled_names
    from edgellm.hub.upload import require_account
    from edgellm.hub.upload import upload as publish

    if upload is not None:
        require_account(upload)
    with conversion() as progress:
        made = converters.convert(
            source,
            destination,
            bits=bits,
            group_size=group_size,
            dtype=dtype,
            recipe=recipe,
            average_bits=average_bits,
            calibration=calibration,
            adapter=adapter,
            tokenizer=tokenizer,
            force=force,
            report=report,
            progress=progress,
        )
    address = None
    if upload is not None:
        options_given = {
            "bits": bits,
            "group-size": group_size,
            "dtype": dtype,
            "recipe": recipe,
            "average-bits": average_bits,
            "adapter": adapter and adapter.name,
        }
        settings = " ".join(
            f"--{name} {value}" for name, value in options_given.items() if value is not None
        )
        base = None if Path(source).expanduser().exists() or source in bundled_names() else source
        address = publish(made.path, upload, model_card(made, upload, base=base, settings=settings))
    if json:
        terminal.write_json(conversion_facts(made) | ({"uploaded": address} if address else {}))
    else:
        tables.show_conversion(made, listed=report)
        if address:
            terminal.note(f"uploaded: {address}")


def export(
    model: options.Model,
    destination: Annotated[Path, typer.Argument(metavar="DEST.gguf", help="The file to be made.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is already there.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a model as one GGUF file, which llama.cpp opens: 4, 5 and 8 bits as Q4_1, Q5_1 and Q8_0, others as F16.

    Codes of 4 and 5 bits are kept; what changes (8-bit weights with a bias of their own do) is
    listed with its error.
    """
    require_backend()
    from edgellm import converters
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.diagnostics.facts import export_facts

    with conversion() as progress:
        made = converters.export(model, destination, force=force, progress=progress)
    if json:
        terminal.write_json(export_facts(made))
    else:
        tables.show_export(made)


def synth(
    shape: Annotated[
        str,
        typer.Argument(
            metavar="SHAPE", help="A published model's: llama-2-7b, llama-3.2-1b, qwen3-8b, ..."
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="The model folder to be made.")
    ],
    *,
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="2|3|4|5|6|8|16", help="Bits of a weight, 16 for unquantized; left out: 4."
        ),
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float16|bfloat16|float32",
            help="What is not quantized; left out: as published.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same seed makes the same weights.")
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a model that is already there.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Make a model folder of a known shape with random weights, to measure a machine before anything is downloaded."""
    require_backend()
    from edgellm.checkpoint.quantization import DEFAULT_BITS
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.converters.synthetic import synthesize
    from edgellm.diagnostics.facts import conversion_facts

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
        tables.show_conversion(made, listed=False)
