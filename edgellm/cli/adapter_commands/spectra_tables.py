"""Tables of singular values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgellm.cli.adapter_commands.columns import percentage, short

if TYPE_CHECKING:
    from edgellm.low_rank.spectra import Spectra

SPECTRA_HEADS = ("matrix", "shape", "norm", "effective rank", "for 90%", "for 95%", "for 99%")
RANK_HEADS = ("rank", "singular value", "energy", "error")


def spectra_rows(spectra: Spectra) -> list[list[str]]:
    """Return a line for each matrix."""
    return [
        [
            short(path),
            f"{rows:,} x {columns:,}",
            f"{spectrum.norm:.4g}",
            f"{spectrum.effective_rank:.1f}",
            *(f"{spectrum.rank_for(energy):,}" for energy in (0.90, 0.95, 0.99)),
        ]
        for path, ((rows, columns), spectrum) in spectra.found.items()
    ]


def rank_rows(spectra: Spectra) -> list[list[str]]:
    """Return a line for each of some ranks: the value, the energy kept and the error.

    The value is that of one matrix; of several there is none.
    """
    errors = spectra.errors()
    values: Mapping[int, str] = {}
    if len(spectra.found) == 1:
        [(_, spectrum)] = spectra.found.values()
        values = {rank: f"{value:.4g}" for rank, value in enumerate(spectrum.values, start=1)}
    return [
        [
            f"{rank:,}",
            values.get(rank, "-"),
            percentage(1 - float(errors[rank]) ** 2),
            f"{float(errors[rank]):.4f}",
        ]
        for rank in shown_ranks(len(errors) - 1)
    ]


def shown_ranks(last: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 12, 16, 24, ... up to the last rank, and that one."""
    ranks = {1, last}
    power = 1
    while power <= last:
        ranks |= {power, power + power // 2}
        power *= 2
    return sorted(rank for rank in ranks if 1 <= rank <= last)
