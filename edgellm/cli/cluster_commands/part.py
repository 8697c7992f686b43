"""``edgellm cluster part``: some layers of a model, to be carried to another machine."""

from __future__ import annotations

import shlex
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options


def part(
    model: options.Model,
    folder: Annotated[
        str,
        Argument(metavar="FOLDER", help="Where the layers go.", rich_help_panel=headings.MODEL),
    ],
    *,
    layers: Annotated[
        str,
        Option(
            metavar="16-31",
            help="Which layers, counted from 0; edgellm plan MODEL --machines says whose. "
            "all: what training of adapters needs.",
            rich_help_panel=headings.OUTPUT,
        ),
    ],
    json: options.Json = False,
) -> None:
    """Write some layers of a model into a folder that is carried to another machine.

    Without it the first machine sends each other one what that lacks. A folder with some of the
    layers is added to; Ctrl-C loses no more than the layer at hand.
    """
    from edgellm.checkpoint.checkpoint import Checkpoint
    from edgellm.cli.common.load_with_progress import read_model
    from edgellm.console import terminal
    from edgellm.console.progress import show_verifying
    from edgellm.console.units import plural, size
    from edgellm.distributed.supply.written_part import parse_layers, write_part
    from edgellm.errors import UnsupportedModelError
    from edgellm.files.given_path import given_path

    checkpoint, _ = read_model(model)
    if not isinstance(checkpoint, Checkpoint):
        raise UnsupportedModelError("models that mlx-lm computes run on one machine")
    numbers = parse_layers(layers, len(checkpoint.layers))
    target = given_path(folder)
    with show_verifying() as progress:
        nbytes = write_part(checkpoint, target, numbers, progress)
    if json:
        terminal.write_json({"folder": str(target), "layers": numbers, "bytes": nbytes})
        return
    held = f"{plural(len(numbers), 'layer')}, {size(nbytes)}, of {size(checkpoint.nbytes)}"
    if len(checkpoint.layers) in numbers:
        held = f"all of it, {size(nbytes)}"
    terminal.note(f"{held}; on the other machine: edgellm cluster join {shlex.quote(folder)}")
