"""A page of singular values: the error of each rank as a plot, and as tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from edgellm.cli.adapter_commands.columns import short
from edgellm.cli.adapter_commands.spectra_tables import (
    SPECTRA_HEADS,
    rank_heads,
    rank_rows,
    shown_ranks,
    spectra_rows,
)
from edgellm.pages.elements import definitions, section, sentence, table
from edgellm.pages.page import page
from edgellm.pages.plots import STYLES, Series, chart

if TYPE_CHECKING:
    from edgellm.low_rank.spectra import Spectra

ABOUT = (
    "The relative error of a rank is the norm of what the nearest matrix of that rank leaves out, "
    "over the norm of the matrix (Eckart and Young); the energy is the sum of squares."
)


def svd_page(spectra: Spectra) -> str:
    """Return a whole document."""
    together = Series("all together", _points(spectra.errors().tolist()))
    many = list(spectra.found.items())
    series = [together]
    if len(many) > 1:
        for number, (path, (_, spectrum)) in enumerate(many[: STYLES - 1], start=1):
            series.append(Series(short(path), _points(spectrum.errors().tolist()), number))
    else:
        series = [Series(short(many[0][0]), together.points)]
    last = max(int(rank) for one in series for rank, _ in one.points)
    ticks = [2.0**power for power in range(last.bit_length())]
    plot = chart(
        series, x_name="rank", y_name="relative error", x_ticks=ticks, y_limit=1.0, logarithmic=True
    )
    ranks = table(rank_heads(spectra), rank_rows(spectra))
    note = ""
    if len(many) > STYLES - 1:
        note = f"The plot shows the first {STYLES - 1} of {len(many)} matrices, and all together."
    parts = [
        f'<h1>Singular values</h1><p class="soft">{escape(spectra.title)}</p>',
        sentence(ABOUT),
        sentence(spectra.sentence().capitalize() + "."),
        section("Error of each rank", plot, ranks, note=note),
    ]
    if len(many) > 1:
        parts.append(section("Matrices", table(SPECTRA_HEADS, spectra_rows(spectra))))
    else:
        path, (shape, spectrum) = many[0]
        rows, columns = shape
        facts = [
            ("matrix", path),
            ("shape", f"{rows:,} x {columns:,}"),
            ("norm", f"{spectrum.norm:.4g}"),
            ("effective rank", f"{spectrum.effective_rank:.1f}"),
        ]
        parts.append(section("The matrix", definitions(facts)))
    return page("edgellm adapter svd", "\n".join(parts))


def _points(errors: list[float]) -> list[tuple[float, float]]:
    return [(float(rank), errors[rank]) for rank in shown_ranks(errors)]
