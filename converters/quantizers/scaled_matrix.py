"""Matrices of one byte a weight, float8 or int8, with a scale a tensor, row, group or block."""

from __future__ import annotations

from functools import cache

import numpy as np

from edgellm.checkpoint.quantization import FLOATS, Quantization
from edgellm.converters.quantizers.packed_matrix import Tensors, affine_form, spread
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

EIGHT_BITS = Quantization(8, 64)
"""The usual form of what was float8."""

MXFP8 = Quantization(8, 32, "mxfp8")
"""MLX's mode of float8 in groups of 32 with a power of two each."""

SCALES = (*FLOATS, "U8", "F8_E8M0")
"""Types of scales; a byte is a power of two, 127 more than its exponent."""


class ScaledMatrix:
    """A matrix of float8 or int8 values (O, I), each times the scale of its block.

    Args:
        tensors: the folder's.
        path: the matrix's.
        scale: the name of its scales: one, (O,), or a grid (rows, columns).
        block: rows and columns of a block, where the config says so; else they follow from the
            grid.
        divisor: of all scales (int8's largest value, where they are largest values).
    """

    def __init__(
        self,
        tensors: Tensors,
        path: str,
        scale: str,
        *,
        block: tuple[int, int] | None = None,
        divisor: float = 1.0,
    ) -> None:
        self._tensors = tensors
        self._name = f"{path}.weight"
        self._scale = scale
        self._divisor = np.float32(divisor)
        outputs, inputs = tensors.shape(self._name, ["F8_E4M3", "I8"], 2)
        self.shape: tuple[int, int] = (outputs, inputs)
        self._is_integer = tensors.dtype(self._name) == "I8"
        self._grid = _grid(tensors.any_shape(scale, SCALES), outputs, scale)
        self._block = (
            _block_length(outputs, self._grid[0], block and block[0], scale),
            _block_length(inputs, self._grid[1], block and block[1], scale),
        )
        self.kept: Quantization | None = None
        if self._is_integer:
            self.kept = affine_form(8, self._block[1], inputs)
        elif tensors.dtype(scale) not in FLOATS and self._block == (1, MXFP8.group_size):
            self.kept = MXFP8
        self.wished: Quantization = self.kept or EIGHT_BITS

    def part(self, part: str, start: int, stop: int) -> Floats | Bytes:
        """Return rows of codes, scales and biases, or of the numbers that they make."""
        if self.kept == MXFP8:
            name = {"weight": self._name, "scales": self._scale}[part]
            return self._tensors.raw(name, start, stop)
        scales = self._scales(start, stop)
        if self.kept is None:
            return self._values(start, stop, scales)
        if part == "weight":
            # int8 from -128 on become codes from 0 on
            return self._tensors.raw(self._name, start, stop).reshape(stop - start, -1) ^ np.uint8(
                0x80
            )
        if part == "biases":
            scales = scales * np.float32(-128)
        return spread(scales, self._block[1], self.kept, self.shape[1])

    def _values(self, start: int, stop: int, scales: Floats) -> Floats:
        content = self._tensors.raw(self._name, start, stop).reshape(stop - start, -1)
        if self._is_integer:
            values = content.view(np.int8).astype(np.float32)
        else:
            values = float8_values()[content]
        values *= np.repeat(scales, self._block[1], axis=1)[:, : self.shape[1]]
        return values

    def _scales(self, start: int, stop: int) -> Floats:
        """Return the scales of some rows, shape (rows, columns of the grid)."""
        if self._tensors.dtype(self._scale) in FLOATS:
            scales = self._tensors.numbers(self._scale)
        else:
            scales = powers_of_two(self._tensors.raw(self._scale))
        grid = scales.reshape(self._grid) / self._divisor
        return grid[np.arange(start, stop) // self._block[0]]


def _grid(shape: tuple[int, ...], outputs: int, name: str) -> tuple[int, int]:
    """Return rows and columns of a tensor of scales."""
    if shape in ((), (1,)):
        return (1, 1)
    if shape == (outputs,):
        return (outputs, 1)
    if len(shape) != 2:
        raise FormatError(
            f"tensor {quoted(name)} has the shape {shape}, which is not a grid of scales",
            hint="download the model again",
        )
    return (shape[0], shape[1])


def _block_length(length: int, count: int, said: int | None, name: str) -> int:
    """Return how many rows, or columns, share a scale."""
    if said is not None and said > 0 and -(-length // said) == count:
        return said
    if length % count:
        raise FormatError(
            f"tensor {quoted(name)} has {count} scales for {length} weights, no whole blocks",
            hint="download the model again",
        )
    return length // count


def powers_of_two(exponents: Bytes) -> Floats:
    """Return the numbers that bytes of float8 without a fraction (e8m0) stand for."""
    return np.exp2(exponents.astype(np.float32) - 127).astype(np.float32)


@cache
def float8_values() -> Floats:
    """Return the values of all 256 bytes of float8 (e4m3 without infinities)."""
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, codes & 7
    sizes = np.where(
        exponents > 0, (1 + fractions / 8) * np.exp2(exponents - 7.0), fractions * 2.0**-9
    )
    sizes[codes & 0x7F == 0x7F] = np.nan
    return np.where(codes > 127, -sizes, sizes).astype(np.float32)
