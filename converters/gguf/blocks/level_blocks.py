"""ggml's types whose values come from a table, as codes of evenly spaced levels.

A group's values are a number of its own (its unit) times levels that the type has for all groups:
-1, 0 and 1, the odd numbers to 15, or uneven ones. Where evenly spaced levels hold them all, the
code of a value is the number of its level, and nothing changes but that the scale is rounded to
float16. Tables and signs are the gguf library's, which gives the values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgellm.converters.gguf.blocks.affine_blocks import GROUP, Parts, half_at
from edgellm.converters.tensors.bit_packing import pack
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.source import Bytes

# N blocks, G groups of a block

Units = Callable[[Bytes], Floats]
"""Returns the unit of each group, shape (N, G), of blocks (N, bytes)."""

HALVES = np.array([0, 4], np.uint8)
"""The first bits of a byte's two numbers."""

PAIRS = np.array([0, 2, 4, 6, 8, 10, 12, 14], np.uint16)
"""The first bits of eight numbers of two bits."""

HALF = np.float32(0.5)


def dequantize_blocks(kind: str, rows: Bytes) -> Floats:
    """Return the values of rows of blocks (R, bytes), by the gguf library; shape (R, columns)."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):
        values: Floats = dequantize(rows, GGMLQuantizationType[kind])
    return values


def by_levels(
    kind: str, bits: int, units: Units, *, first: float | Units, step: float = 1.0
) -> Callable[[Bytes], Parts]:
    """Return what takes blocks of a type apart: level n is ``first + n * step`` units.

    Args:
        kind: the type.
        bits: bits per code.
        units: of each group.
        first: the lowest level, or what gives each group's.
        step: between levels.
    """

    def unpack(blocks: Bytes) -> Parts:
        unit = units(blocks)
        lowest: float | Floats = first(blocks) if callable(first) else first
        scales = (unit * np.float32(step)).astype(np.float16)
        biases = (scales.astype(np.float32) * (lowest / np.float32(step))).astype(np.float16)
        values = dequantize_blocks(kind, blocks).reshape(*unit.shape, GROUP)
        wide = unit[..., None]
        levels = np.divide(values, wide, out=np.zeros_like(values), where=wide != 0)
        levels -= np.asarray(lowest, np.float32)[..., None]
        codes = np.rint(levels / np.float32(step)).clip(0, (1 << bits) - 1)
        packed = pack(np.nan_to_num(codes).astype(np.uint8).reshape(len(blocks), -1), bits)
        return packed, scales, biases

    return unpack


def block_scale(offset: int, groups: int) -> Units:
    """Return what gives all groups the float16 at a byte of the block."""

    def units(blocks: Bytes) -> Floats:
        return np.repeat(_wide(blocks, offset), groups, axis=1)

    return units


def iq1_s(blocks: Bytes) -> Floats:
    """Return d * (2 s + 1); bits 12 to 14 of a group's qh are s."""
    return _wide(blocks, 0) * (2 * (_iq1_s_high(blocks) >> 12 & 7) + 1).astype(np.float32)


def iq1_s_lowest(blocks: Bytes) -> Floats:
    """Return each group's lowest level: -1, moved by an eighth up or down (bit 15 of its qh)."""
    down = (_iq1_s_high(blocks) >> 15).astype(np.float32)
    return np.float32(-0.875) - np.float32(0.25) * down


def iq2_xxs(blocks: Bytes) -> Floats:
    """Return d * (s + 1/2) / 4; s is in the top bits of a group's second word."""
    return _wide(blocks, 0) * (_top_bits(blocks[:, 2:])[:, 1::2] + HALF) * np.float32(0.25)


def iq3_xxs(blocks: Bytes) -> Floats:
    """Return d * (s + 1/2) / 2; s is in the top bits of a group's word."""
    return _wide(blocks, 0) * (_top_bits(blocks[:, 66:]) + HALF) * HALF


def iq3_s(blocks: Bytes) -> Floats:
    """Return d * (2 s + 1); the last four bytes have two s of four bits each."""
    return _wide(blocks, 0) * (2 * _fours(blocks[:, 106:]) + 1).astype(np.float32)


def iq4_xs(blocks: Bytes) -> Floats:
    """Return d * (s - 32): four bits of s in bytes 4 to 7, two in the number at byte 2."""
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> PAIRS & np.uint16(3)
    sixes = _fours(blocks[:, 4:8]).astype(np.float32) + 16 * high.astype(np.float32)
    return _wide(blocks, 0) * (sixes - np.float32(32))


def _wide(blocks: Bytes, offset: int) -> Floats:
    return half_at(blocks, offset).astype(np.float32)


def _iq1_s_high(blocks: Bytes) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(blocks[:, 34:50]).view("<u2")


def _top_bits(content: Bytes) -> Floats:
    """Return the upper four bits of each word of four bytes."""
    return (np.ascontiguousarray(content).view("<u4") >> 28).astype(np.float32)


def _fours(content: Bytes) -> Bytes:
    """Return four-bit numbers, the lower one of each byte first: (N, n) becomes (N, 2 n)."""
    return (content[..., None] >> HALVES & np.uint8(15)).reshape(len(content), -1)
