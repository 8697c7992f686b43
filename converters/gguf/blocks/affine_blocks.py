"""ggml's plain block types, taken apart: their codes are MLX's, or lie in another order.

A block type says w = d * q + m, or w = d * (q - 8): then the bias is -8 * d, which float16 holds
exactly. MXFP4 and NVFP4 are MLX's modes of the same names.

Layouts and letters are those of llama.cpp's ``ggml/src/ggml-common.h``: d and m are a block's
scale and minimum, qs its codes, qh their high bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from edgellm.converters.tensors.bit_packing import pack
from edgellm.converters.tensors.source import Bytes

# N blocks

Halves = npt.NDArray[np.float16]
Parts = tuple[Bytes, Halves | Bytes, Halves | None]
"""Packed codes (N, bytes), scales and biases (N, groups); None: the mode has no biases."""

GROUP = 32
"""Weights that share a scale in most types."""


def _nibbles(packed: Bytes) -> Bytes:
    """Return blocks' four-bit codes, shape (N, 16), in MLX's order.

    ggml has weight i and weight i + 16 in byte i; MLX has weights 2i and 2i + 1.
    """
    pairs = np.ascontiguousarray(packed).view("<u2")  # (N, 8): bytes 2i and 2i + 1
    codes = np.empty(packed.shape, np.uint8)
    half = packed.shape[1] // 2
    for part, nibbles in ((codes[:, :half], pairs), (codes[:, half:], pairs >> 4)):
        bare = nibbles & 0x0F0F
        bare |= bare >> 4  # the lower byte now holds both codes; the store cuts off the upper one
        part[...] = bare
    return codes


def _fifth_bits(packed: Bytes, high: Bytes) -> Bytes:
    """Return blocks' five-bit codes: nibbles (N, 16) and fifth bits (N, 4) become (N, 20)."""
    codes = np.empty((len(packed), GROUP), np.uint8)
    codes[:, :16] = packed & 0x0F
    codes[:, 16:] = packed >> 4
    codes |= np.unpackbits(np.ascontiguousarray(high), axis=1, bitorder="little") << 4
    return pack(codes, 5)


def half_at(blocks: Bytes, offset: int) -> Halves:
    """Return the float16 at a byte of each block, shape (N, 1)."""
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2")


@cache
def _products(factor: int) -> Halves:
    """Return every float16 times a power of two: NumPy multiplies float16 one by one."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return (every.astype(np.float32) * factor).astype(np.float16)


def times(halves: Halves, factor: int) -> Halves:
    """Return float16 numbers times a power of two, rounded once."""
    return _products(factor)[halves.view(np.uint16)]


def q4_0(blocks: Bytes) -> Parts:
    """Take blocks apart: w = d * (q - 8); d f16, qs 16 bytes."""
    scale = half_at(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, times(scale, -8)


def q4_1(blocks: Bytes) -> Parts:
    """Take blocks apart: w = d * q + m; d f16, m f16, qs 16 bytes."""
    return _nibbles(blocks[:, 4:]), half_at(blocks, 0), half_at(blocks, 2)


def q5_0(blocks: Bytes) -> Parts:
    """Take blocks apart: w = d * (q - 16); d f16, qh 4 bytes (a fifth bit each), qs 16 bytes."""
    scale = half_at(blocks, 0)
    return _fifth_bits(blocks[:, 6:], blocks[:, 2:6]), scale, times(scale, -16)


def q5_1(blocks: Bytes) -> Parts:
    """Take blocks apart: w = d * q + m; d f16, m f16, qh 4 bytes, qs 16 bytes."""
    return _fifth_bits(blocks[:, 8:], blocks[:, 4:8]), half_at(blocks, 0), half_at(blocks, 2)


def q8_0(blocks: Bytes) -> Parts:
    """Take blocks apart: w = d * q; d f16, qs 32 int8."""
    scale = half_at(blocks, 0)
    # int8 from -128 on become codes from 0 on
    return blocks[:, 2:] ^ np.uint8(0x80), scale, times(scale, -128)


def _k_scales(blocks: Bytes) -> tuple[Halves, Halves]:
    """Return the scales and biases of a K block's eight groups, shape (N, 8) each.

    Its 12 bytes from byte 4 on hold six bits of each: the first four scales and minima in the low
    bits of bytes 0-3 and 4-7; of the others the low four bits in bytes 8-11, the upper two in the
    top bits of bytes 0-7. Both are multiplied by a float16 of the block.
    """
    first, second, mixed = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    sixes = np.concatenate([first & 63, mixed & 15 | first >> 2 & 48], axis=1)
    minima = np.concatenate([second & 63, mixed >> 4 | second >> 2 & 48], axis=1)
    scales = sixes.astype(np.float32) * half_at(blocks, 0)
    biases = minima.astype(np.float32) * -half_at(blocks, 2).astype(np.float32)
    return scales.astype(np.float16), biases.astype(np.float16)


def _k_nibbles(packed: Bytes) -> Bytes:
    """Return the low bits of a K block's codes, a byte each: (N, 128) becomes (N, 8, 32).

    64 codes lie in 32 bytes, the first 32 in the low halves.
    """
    runs = packed.reshape(-1, 4, 1, GROUP)
    return np.concatenate([runs & 0x0F, runs >> 4], axis=2).reshape(-1, 8, GROUP)


def q4_k(blocks: Bytes) -> Parts:
    """Take blocks of 256 apart: w = d * s * q - dmin * m; d f16, dmin f16, s and m 12 bytes, qs."""
    codes = pack(_k_nibbles(blocks[:, 16:]), 4)
    return codes.reshape(len(blocks), -1), *_k_scales(blocks)


def q5_k(blocks: Bytes) -> Parts:
    """Take blocks apart as ``q4_k``; qh, 32 bytes before qs, has bit g of weight i of group g."""
    codes = _k_nibbles(blocks[:, 48:])
    for group in range(8):
        codes[:, group] |= (blocks[:, 16:48] >> group & 1) << 4
    return pack(codes, 5).reshape(len(blocks), -1), *_k_scales(blocks)


def q1_0(blocks: Bytes) -> Parts:
    """Take blocks of 128 apart: w is -d or d; d f16, qs 16 bytes, MLX's own packing."""
    scale = half_at(blocks, 0)
    return blocks[:, 2:], times(scale, 2), times(scale, -1)


def q2_0(blocks: Bytes) -> Parts:
    """Take blocks of 64 apart: w = d * (q - 1); d f16, qs 16 bytes, MLX's own packing."""
    scale = half_at(blocks, 0)
    return blocks[:, 2:], scale, times(scale, -1)


def mxfp4(blocks: Bytes) -> Parts:
    """Take blocks apart: w = float4 * 2 ** (e - 127); e 1 byte, qs 16 bytes."""
    return _nibbles(blocks[:, 1:]), blocks[:, :1], None


def nvfp4(blocks: Bytes) -> Parts:
    """Take blocks of 64 apart: w = float4 * d; d 4 bytes (float8 E4M3), qs 4 times 8 bytes.

    A scale has no sign, and the one that is not a number counts as zero.
    """
    scales = blocks[:, :4] & np.uint8(0x7F)
    scales[scales == 0x7F] = 0
    return _nibbles(blocks[:, 4:].reshape(-1, 8)).reshape(len(blocks), 32), scales, None
