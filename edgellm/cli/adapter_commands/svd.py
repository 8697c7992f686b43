"""``edgellm adapter svd``: singular values, and the error of each rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.errors import ConfigError

if TYPE_CHECKING:
    from edgellm.low_rank.spectra import Spectra


def svd(
    source: Annotated[
        str, Argument(metavar="MODEL|FOLDER", help="A model in any format, or an adapter.")
    ],
    *,
    matrix: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="A matrix, the end of its name, or several with *; may be given several times.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        Option(metavar="MODEL", help="Look at what MODEL|FOLDER has more than this model."),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            metavar="FILE.html",
            help="Also write a page with the plot.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show the singular values of a model's matrix, of a full change (with --base) or of an
    adapter's changes, the relative error of each rank (Eckart-Young), and the rank that keeps 90,
    95 and 99 % of the energy.
    """
    from edgellm.console.progress import show_steps
    from edgellm.low_rank.spectra import read_spectra

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{output} is no name of a page", hint="name a file that ends in .html")
    with show_steps() as steps:
        spectra = read_spectra(source, matrix or [], base=base, progress=steps.show)
    if output is not None:
        _write_page(spectra, output)
    if json:
        terminal.write_json(spectra.facts())
        return
    show(spectra)


def show(spectra: Spectra) -> None:
    """Write tables, the plot and a sentence to standard output."""
    from edgellm.cli.adapter_commands.columns import columns
    from edgellm.cli.adapter_commands.error_curve import error_curve
    from edgellm.cli.adapter_commands.spectra_tables import (
        SPECTRA_HEADS,
        rank_heads,
        rank_rows,
        spectra_rows,
    )

    parts = [spectra.title]
    if len(spectra.found) > 1:
        parts.append(columns(SPECTRA_HEADS, spectra_rows(spectra)))
    errors = spectra.errors().tolist()
    parts.append(columns(rank_heads(spectra), rank_rows(spectra)))
    if len(errors) > 2:
        parts.append(error_curve(errors))
    parts.append(spectra.sentence())
    terminal.write_line("\n\n".join(parts))


def _write_page(spectra: Spectra, output: Path) -> None:
    from edgellm.cli.adapter_commands.svd_page import svd_page
    from edgellm.files.atomic import write_file

    write_file(output, [svd_page(spectra).encode()])
    terminal.note(f"page: {output}")
