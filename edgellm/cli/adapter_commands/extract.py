"""``edgellm adapter extract``: what a tuned model has more than its base, as an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.cli.adapter_commands import adapter_options
from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend

if TYPE_CHECKING:
    from edgellm.low_rank.extraction import Extraction


def extract(
    tuned: Annotated[str, Argument(metavar="TUNED", help="The model afterwards, in any format.")],
    base: Annotated[str, Argument(metavar="BASE", help="The model that it was made from.")],
    out: adapter_options.Out,
    *,
    rank: Annotated[
        int | None,
        Option(
            metavar="N", min=1, help="Rank of each change at most; default: 16 without --energy."
        ),
    ] = None,
    energy: Annotated[
        float | None,
        Option(
            metavar="X",
            help="Share of each change's energy to keep (0.9), with the rank that it needs.",
        ),
    ] = None,
    partial: Annotated[
        bool,
        Option("--partial", help="Leave out what no adapter holds: norms, embedding, head."),
    ] = False,
    form: adapter_options.Form = "peft",
    force: adapter_options.Force = False,
    json: options.Json = False,
) -> None:
    """Make an adapter of what a model has more than the one that it was tuned from: the nearest
    change of a low rank for each matrix, one at a time in memory.

    The error of each is told. Large matrices take a randomized SVD, whose error is measured. A
    quantized base is dequantized.
    """
    require_backend()
    from edgellm.console.progress import show_steps
    from edgellm.low_rank.extraction import extract as make
    from edgellm.setting_values import choice

    chosen = choice("format", form, adapter_options.FORMS)
    with show_steps() as steps:
        made = make(
            tuned,
            base,
            out,
            rank=rank,
            energy=energy,
            partial=partial,
            form=chosen,
            force=force,
            progress=steps.show,
        )
    if json:
        terminal.write_json(made.facts())
    else:
        _show(made)


def _show(made: Extraction) -> None:
    from edgellm.cli.adapter_commands.columns import columns, percentage, short
    from edgellm.console.units import plural, size

    rows = [
        [
            short(item.path),
            str(item.rank),
            f"{item.norm:.4g}",
            f"{item.error:.4f}" + ("" if item.is_nearest else " *"),
            percentage(1 - item.error**2),
        ]
        for item in made.matrices
    ]
    terminal.write_line(columns(("matrix", "rank", "norm", "error", "energy"), rows))
    if not all(item.is_nearest for item in made.matrices):
        terminal.note("* measured; another product of this rank may be a little nearer")
    if made.unchanged:
        terminal.note(f"{plural(made.unchanged, 'matrix', 'matrices')} the same")
    for name in made.left_out:
        terminal.note(f"left out, as no adapter holds it: {name}")
    for line in made.notes:
        terminal.note(line)
    terminal.note(
        f"{made.path}: {size(made.nbytes)}, {percentage(1 - made.error**2)} of the energy of the "
        f"change (relative error {made.error:.4f})"
    )
