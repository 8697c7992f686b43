"""How a weight is stored."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import BackendError

ITEM_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A weight's form: MLX's affine codes (w = scale * q + bias a group), or plain numbers.

    Attributes:
        bits: of a code; 0 for plain numbers.
        group: weights that share scale and bias; 0 for plain numbers.
        kind: of scales and biases, or of the plain numbers: ``f16``, ``bf16`` or ``f32``.
    """

    bits: int
    group: int
    kind: str

    def __post_init__(self) -> None:
        """Check that there are kernels for it."""
        dense = (self.bits, self.group) == (0, 0)
        if self.kind not in ITEM_BYTES or not (
            dense or (self.bits in BITS and self.group in GROUPS)
        ):
            raise BackendError(
                f"there are no kernels for {self.bits} bits in groups of {self.group} with {self.kind} scales"
            )

    @property
    def dense(self) -> bool:
        """Whether these are plain numbers."""
        return self.bits == 0

    def __str__(self) -> str:
        """As a kernel's name says it."""
        return self.kind if self.dense else f"{self.bits}_{self.group}_{self.kind}"

    @property
    def item_bytes(self) -> int:
        """Bytes of a scale, or of a plain number."""
        return ITEM_BYTES[self.kind]

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row's codes or numbers."""
        return columns * self.item_bytes if self.dense else columns * self.bits // 8
