"""Tables of singular values."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.cli.adapter_commands.columns import percentage, short
from edgellm.low_rank.spectra import ENERGIES, Spectra

SHARES = [f"for {energy:.0%}" for energy in ENERGIES]
SPECTRA_HEADS = ("matrix", "shape", "norm", "effective rank", *SHARES)
NOTHING = 5e-6
"""A relative error below which a rank is taken for exact."""


def spectra_rows(spectra: Spectra) -> list[list[str]]:
    """Return a line for each matrix."""
    return [
        [
            short(path),
            f"{rows:,} x {columns:,}",
            f"{spectrum.norm:.4g}",
            f"{spectrum.effective_rank:.1f}",
            *(f"{spectrum.rank_for(energy):,}" for energy in ENERGIES),
        ]
        for path, ((rows, columns), spectrum) in spectra.found.items()
    ]


def rank_heads(spectra: Spectra) -> tuple[str, ...]:
    """Return the heads of ``rank_rows``: one matrix has singular values, several have none."""
    if len(spectra.found) == 1:
        return ("rank", "singular value", "energy", "error")
    return ("rank", "energy", "error")


def rank_rows(spectra: Spectra) -> list[list[str]]:
    """Return a line for each of some ranks: the value, the energy kept and the error."""
    errors = spectra.errors().tolist()
    rows = []
    for rank in shown_ranks(errors):
        row = [f"{rank:,}", percentage(1 - errors[rank] ** 2), f"{errors[rank]:.4f}"]
        if len(spectra.found) == 1:
            [(_, spectrum)] = spectra.found.values()
            row.insert(1, f"{spectrum.values[rank - 1]:.4g}")
        rows.append(row)
    return rows


def shown_ranks(errors: Sequence[float]) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 12, 16, ... up to the first rank that leaves nothing out."""
    last = next(rank for rank, error in enumerate(errors) if error < NOTHING)
    ranks = {1, last}
    power = 1
    while power <= last:
        ranks |= {power, power + power // 2}
        power *= 2
    return sorted(rank for rank in ranks if 1 <= rank <= last)
