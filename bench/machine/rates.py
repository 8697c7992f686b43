"""The upper limits of a device, which floor times and roofline shares are computed from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """The measured limits of a processor or GPU.

    Attributes:
        bytes_per_second: that it reads from its memory.
        flops_per_second: operations in matrix products; None where they were not measured.
    """

    bytes_per_second: float
    flops_per_second: float | None = None

    def best(self, other: Rates | None) -> Rates:
        """Return the larger of each limit of two measurements of one device."""
        if other is None:
            return self
        flops = max(self.flops_per_second or 0.0, other.flops_per_second or 0.0)
        return Rates(max(self.bytes_per_second, other.bytes_per_second), flops or None)
