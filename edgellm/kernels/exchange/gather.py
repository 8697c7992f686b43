"""Columns that each of several machines has, and that all of them gather."""

# L tokens

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Bounds = tuple[int, int]
"""The first column, and the one behind the last."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Where a machine's columns are, and where those of all belong; numbers are float32.

    Attributes:
        source: the address of this machine's columns of the first token.
        source_row_bytes: from one token to the next.
        target: the address of the columns (L, all) of all machines.
        columns: of each machine, those that it has.
    """

    source: int
    source_row_bytes: int
    target: int
    columns: Sequence[Bounds]

    @property
    def row_bytes(self) -> int:
        """From one token to the next of the columns of all."""
        return 4 * self.columns[-1][1]

    def place(self, machine: int) -> int:
        """Return the address where the columns of a machine belong."""
        return self.target + 4 * self.columns[machine][0]

    def width(self, machine: int) -> int:
        """Return the bytes of a row of a machine's columns."""
        first, stop = self.columns[machine]
        return 4 * (stop - first)
