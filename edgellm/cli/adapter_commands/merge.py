"""``edgellm adapter merge``: two adapters of one base as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.adapter_commands import adapter_options
from edgellm.cli.common import options
from edgellm.cli.common.values import one_of
from edgellm.console import terminal
from edgellm.errors import ConfigError


def merge(
    first: Annotated[Path, Argument(metavar="A", help="An adapter.")],
    second: Annotated[Path, Argument(metavar="B", help="Another one of the same base.")],
    out: adapter_options.Out,
    *,
    weights: Annotated[
        str | None,
        Option(metavar="X,Y", help="What each adapter's changes are multiplied by; default: 1,1."),
    ] = None,
    rank: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            help="Rank of each sum at most, by SVD; default: the sum of the ranks, exact.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        Option(
            "--format",
            metavar="peft|mlx-lm",
            help="Who opens the adapter; default: as A.",
            autocompletion=one_of("peft|mlx-lm"),
            rich_help_panel=headings.OUTPUT,
        ),
    ] = None,
    force: adapter_options.Force = False,
    json: options.Json = False,
) -> None:
    """Add two adapters of one base, such as what was learned first and what was learned on top:
    the factors stand side by side, so that ranks add and nothing is lost, or are brought to a
    lower rank, whose error is told.
    """
    from edgellm.console.units import plural, size
    from edgellm.low_rank.sums import add_adapters
    from edgellm.setting_values import choice

    chosen = None if form is None else choice("format", form, adapter_options.FORMS)
    made = add_adapters(
        [first, second], out, weights=_numbers(weights), rank=rank, form=chosen, force=force
    )
    if json:
        terminal.write_json(made.facts())
        return
    for line in made.notes:
        terminal.note(line)
    ranks = sorted(set(made.ranks.values()))
    shown = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    exact = "exact"
    if made.error:
        exact = f"relative error {made.error:.4g}"
    matrices = plural(len(made.ranks), "change")
    terminal.note(f"{made.path}: {matrices} of rank {shown}, {size(made.nbytes)}, {exact}")


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"the weights are {text!r}", hint="give a number for each adapter: --weights 1,0.5"
        ) from None
