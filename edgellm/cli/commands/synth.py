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
            help="A published model's shape, such as llama-3.2-1b, or a folder with a config.json.",
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
            help="Bits per weight, 16 for unquantized; default: 4, of untrained weights 16.",
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
    untrained: Annotated[
        bool,
        Option(
            "--untrained",
            help="Weights as training begins with them: normal, norms 1, biases 0.",
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a model folder of a known shape with random weights, to measure a machine before
    anything is downloaded; or, with --untrained, to pretrain a small model.
    """
    require_backend()
    from edgellm.checkpoint.quantization import DEFAULT_BITS
    from edgellm.console.progress import show_converting
    from edgellm.console.tables import conversion_table
    from edgellm.converters.synthetic import synthesize
    from edgellm.converters.tensors.settings import UNQUANTIZED_BITS
    from edgellm.diagnostics.facts import conversion_facts

    with show_converting() as progress:
        made = synthesize(
            shape,
            destination,
            bits=bits or (UNQUANTIZED_BITS if untrained else DEFAULT_BITS),
            group_size=group_size,
            dtype=dtype,
            seed=seed,
            untrained=untrained,
            force=force,
            progress=progress,
        )
    if json:
        terminal.write_json(conversion_facts(made))
    else:
        conversion_table.show_conversion(made, listed=False)
