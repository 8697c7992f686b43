"""How a weight is stored: packed codes with scales and biases, or plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import BackendError

# Kinds of plain numbers, scales and biases.
ITEM_BYTES = {"f16": 2, "bf16": 2, "f32": 4}
# Bits of a code, and codes of a group: those of MLX's affine mode.
BITS = (1, 2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A weight's format: MLX's affine codes (w = scale * q + bias a group), or plain numbers.

    Attributes:
        bits: bits per code; 0 for plain numbers.
        group: weights that share scale and bias; 0 for plain numbers.
        kind: the kind of scales and biases, or of the plain numbers: ``f16``, ``bf16`` or ``f32``.

    Raises:
        BackendError: there are no kernels for it.
    """

    bits: int
    group: int
    kind: str

    def __post_init__(self) -> None:
        """Check that there are kernels for it."""
        dense = (self.bits, self.group) == (0, 0)
        quantized = self.bits in BITS and self.group in GROUPS
        if self.kind not in ITEM_BYTES or not (dense or quantized):
            raise BackendError(
                f"there are no kernels for {self.bits} bits in groups of {self.group} "
                f"with {self.kind} scales"
            )

    @property
    def dense(self) -> bool:
        """Whether these are plain numbers."""
        return self.bits == 0

    def __str__(self) -> str:
        """As a kernel's name says it: ``4_64_f16``, or ``f16`` for plain numbers."""
        if self.dense:
            return self.kind
        return f"{self.bits}_{self.group}_{self.kind}"

    @property
    def item_bytes(self) -> int:
        """Bytes of a scale, or of a plain number."""
        return ITEM_BYTES[self.kind]

    @property
    def weight_bits(self) -> int:
        """Bits that each weight takes, scales and biases left out."""
        if self.dense:
            return 8 * self.item_bytes
        return self.bits
