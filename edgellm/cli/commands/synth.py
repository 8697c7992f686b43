"""``edgellm synth``: a model folder of random weights in a published model's shape."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.values import one_of, shapes
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend


def synth(
    shape: Annotated[
        str,
        Argument(
            metavar="SHAPE",
            help="The shape of a published model: llama-2-7b, llama-3.2-1b, qwen3-8b, ...",
            rich_help_panel=headings.MODEL,
            autocompletion=shapes,
        ),
    ],
    destination: options.Destination,
    *,
    bits: Annotated[
        int | None,
        Option(
            metavar="1|2|3|4|5|6|8|16",
            help="Bits per weight, 16 for unquantized; default: 4.",
            rich_help_panel=headings.QUANTIZATION,
            autocompletion=one_of("1|2|3|4|5|6|8|16"),
        ),
    ] = None,
    group_size: options.GroupSize = None,
    dtype: Annotated[
        str | None,
        Option(
            metavar="float16|bfloat16|float32",
            help="Type of what is not quantized; default: as published.",
            rich_help_panel=headings.QUANTIZATION,
            autocompletion=one_of("float16|bfloat16|float32"),
        ),
    ] = None,
    seed: Annotated[
        int,
        Option(
            metavar="N",
            help="The same seed makes the same weights.",
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = 0,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a model folder of a known shape with random weights, to measure a machine before
    anything is downloaded.
    """
    require_backend()
    from edgellm.checkpoint.quantization import DEFAULT_BITS
    from edgellm.console import tables
    from edgellm.console.progress import show_converting
    from edgellm.converters.synthetic import synthesize
    from edgellm.diagnostics.facts import conversion_facts

    with show_converting() as progress:
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
