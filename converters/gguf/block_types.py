"""ggml's block types as MLX stores them, and back.

Both write a weight as scale * code + bias over groups of 32. Where a type says just that, its codes
are kept (``AFFINE``); where it says w = d * (q - 8), the bias is -8 * d, which float16 holds
exactly. The other types are dequantized, and quantized again (``REQUANTIZED``).

Layouts and letters are those of llama.cpp's ``ggml/src/ggml-common.h``: d and m are a block's
scale and minimum, qs its codes, qh their high bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from edgellm.converters.tensors.bit_packing import pack, unpack
from edgellm.converters.tensors.source import Bytes

# N blocks, R rows

Halves = npt.NDArray[np.float16]
Parts = tuple[Bytes, Halves, Halves]
"""Packed codes (R, bytes), scales and biases (R, groups)."""

GROUP = 32
"""Weights that share a scale and a bias, in every type of ``AFFINE``."""

BATCH_BYTES = 1 << 18
"""Bytes of blocks in work at once: with all that is made of them they fit a second-level cache."""

FLOATS = ("F32", "F16", "BF16")
"""ggml's unquantized types, which safetensors calls the same."""


@dataclass(frozen=True, slots=True)
class AffineType:
    """A block type that MLX can say.

    Attributes:
        bits: of a code.
        weights: of a block, a multiple of ``GROUP``.
        nbytes: of a block.
        unpack: takes blocks (N, nbytes) apart into packed codes (N, weights * bits / 8), scales and
            biases (N, weights / GROUP).
    """

    bits: int
    weights: int
    nbytes: int
    unpack: Callable[[Bytes], Parts]


def split_blocks(kind: str, rows: Bytes) -> Parts:
    """Return rows of blocks, shape (R, bytes), as MLX stores them.

    Exact, save the scales of Q4_K and Q5_K, which are products of a float16 and six bits and are
    rounded to float16.

    Args:
        kind: one of ``AFFINE``.
        rows: whole blocks.
    """
    form = AFFINE[kind]
    blocks = rows.reshape(-1, form.nbytes)
    groups = form.weights // GROUP
    weight = np.empty((len(blocks), form.weights * form.bits // 8), np.uint8)
    scales = np.empty((len(blocks), groups), np.float16)
    biases = np.empty_like(scales)
    step = max(1, BATCH_BYTES // form.nbytes)
    # what overflows becomes infinite, and is refused where it is written
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            batch = slice(start, start + step)
            weight[batch], scales[batch], biases[batch] = form.unpack(blocks[batch])
    count = len(rows)
    return weight.reshape(count, -1), scales.reshape(count, -1), biases.reshape(count, -1)


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


def _half(blocks: Bytes, offset: int) -> Halves:
    """Return the float16 at a byte of each block, shape (N, 1)."""
    return np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<f2")


@cache
def _products(factor: int) -> Halves:
    """Return every float16 times a power of two: NumPy multiplies float16 one by one."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return (every.astype(np.float32) * factor).astype(np.float16)


def _times(halves: Halves, factor: int) -> Halves:
    return _products(factor)[halves.view(np.uint16)]


def _q4_0(blocks: Bytes) -> Parts:
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, _times(scale, -8)


def _q4_1(blocks: Bytes) -> Parts:
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Parts:
    scale = _half(blocks, 0)
    return _fifth_bits(blocks[:, 6:], blocks[:, 2:6]), scale, _times(scale, -16)


def _q5_1(blocks: Bytes) -> Parts:
    return _fifth_bits(blocks[:, 8:], blocks[:, 4:8]), _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Bytes) -> Parts:
    scale = _half(blocks, 0)
    # int8 from -128 on become codes from 0 on
    return blocks[:, 2:] ^ np.uint8(0x80), scale, _times(scale, -128)


def _k_scales(blocks: Bytes) -> tuple[Halves, Halves]:
    """Return the scales and biases of a K block's eight groups, shape (N, 8) each.

    Its 12 bytes from byte 4 on hold six bits of each: the first four scales and minima in the low
    bits of bytes 0-3 and 4-7; of the others the low four bits in bytes 8-11, the upper two in the
    top bits of bytes 0-7. Both are multiplied by a float16 of the block.
    """
    first, second, mixed = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    sixes = np.concatenate([first & 63, mixed & 15 | first >> 2 & 48], axis=1)
    minima = np.concatenate([second & 63, mixed >> 4 | second >> 2 & 48], axis=1)
    scales = sixes.astype(np.float32) * _half(blocks, 0)
    biases = minima.astype(np.float32) * -_half(blocks, 2).astype(np.float32)
    return scales.astype(np.float16), biases.astype(np.float16)


def _k_nibbles(packed: Bytes) -> Bytes:
    """Return the low bits of a K block's codes, a byte each: (N, 128) becomes (N, 8, 32).

    64 codes lie in 32 bytes, the first 32 in the low halves.
    """
    runs = packed.reshape(-1, 4, 1, GROUP)
    return np.concatenate([runs & 0x0F, runs >> 4], axis=2).reshape(-1, 8, GROUP)


def _q4_k(blocks: Bytes) -> Parts:
    codes = pack(_k_nibbles(blocks[:, 16:]), 4)
    return codes.reshape(len(blocks), -1), *_k_scales(blocks)


def _q5_k(blocks: Bytes) -> Parts:
    codes = _k_nibbles(blocks[:, 48:])
    for group in range(8):
        codes[:, group] |= (blocks[:, 16:48] >> group & 1) << 4
    return pack(codes, 5).reshape(len(blocks), -1), *_k_scales(blocks)


AFFINE: Mapping[str, AffineType] = {
    # d f16, qs 16 bytes; w = d * (q - 8)
    "Q4_0": AffineType(bits=4, weights=32, nbytes=18, unpack=_q4_0),
    # d f16, m f16, qs 16 bytes; w = d * q + m
    "Q4_1": AffineType(bits=4, weights=32, nbytes=20, unpack=_q4_1),
    # d f16, qh 4 bytes (a fifth bit each), qs 16 bytes; w = d * (q - 16)
    "Q5_0": AffineType(bits=5, weights=32, nbytes=22, unpack=_q5_0),
    # d f16, m f16, qh 4 bytes, qs 16 bytes; w = d * q + m
    "Q5_1": AffineType(bits=5, weights=32, nbytes=24, unpack=_q5_1),
    # d f16, qs 32 int8; w = d * q
    "Q8_0": AffineType(bits=8, weights=32, nbytes=34, unpack=_q8_0),
    # d f16, dmin f16, scales 12 bytes (6 bits each), qs 128 bytes; w = d * scale * q - dmin * min
    "Q4_K": AffineType(bits=4, weights=256, nbytes=144, unpack=_q4_k),
    # as Q4_K, with qh 32 bytes (bit g of byte i is weight i's of group g) before qs
    "Q5_K": AffineType(bits=5, weights=256, nbytes=176, unpack=_q5_k),
}
"""The types whose codes are kept."""

REQUANTIZED: Mapping[str, int] = {
    # groups of 16: scales 16 bytes (4 bits of scale, 4 of minimum), qs 64, d f16, dmin f16
    "Q2_K": 3,
    # groups of 16, a bias of -4 * scale: hmask 32 bytes, qs 64, scales 12 (6 bits each), d f16
    "Q3_K": 4,
    # groups of 16, a bias of -32 * scale: ql 128 bytes, qh 64, scales 16 int8, d f16
    "Q6_K": 6,
    # -1, 0 or 1, five a byte: qs 48 bytes, qh 4 (four a byte), d f16
    "TQ1_0": 2,
    # -1, 0 or 1, four a byte: qs 64 bytes, d f16
    "TQ2_0": 2,
    # IQ1 to IQ3: indexes into tables of eight (IQ3: four) values, with signs and scales
    "IQ1_S": 2,
    "IQ1_M": 2,
    "IQ2_XXS": 3,
    "IQ2_XS": 3,
    "IQ2_S": 3,
    "IQ3_XXS": 4,
    "IQ3_S": 4,
    # 16 uneven values, in blocks of 32 (d f16, qs 16 bytes) or 256 (with a six-bit scale a group)
    "IQ4_NL": 4,
    "IQ4_XS": 4,
    # 16 float4 values with a power of two a block of 32: e 1 byte, qs 16 bytes
    "MXFP4": 4,
}
"""The types that MLX cannot say in groups of 32, and the bits that their values get anew."""

CODE_BITS: Mapping[str, int] = {
    **REQUANTIZED,
    **{kind: form.bits for kind, form in AFFINE.items()},
}
"""Bits of a code in MLX, for every quantized type that is read."""


def dequantize_blocks(kind: str, rows: Bytes) -> npt.NDArray[np.float32]:
    """Return the values of rows of blocks (R, bytes), by the gguf library; shape (R, columns)."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):
        values: npt.NDArray[np.float32] = dequantize(rows, GGMLQuantizationType[kind])
    return values


def join_q4_1(weight: Bytes, scales: Halves, biases: Halves) -> Bytes:
    """Return Q4_1 blocks (R, bytes) of MLX's four-bit codes, scales and biases (R, groups)."""
    packed = weight.reshape(-1, 16)
    blocks = np.empty((scales.size, 20), np.uint8)
    blocks[:, :2] = _raw(scales)
    blocks[:, 2:4] = _raw(biases)
    step = BATCH_BYTES // 16
    for start in range(0, len(packed), step):
        # a code a byte, then the first 16 into the low halves, the last 16 into the high ones
        pairs = packed[start : start + step].astype("<u2")
        pairs |= pairs << 4
        pairs &= 0x0F0F
        blocks[start : start + step, 4:] = (pairs[:, :8] | pairs[:, 8:] << 4).view(np.uint8)
    return blocks.reshape(len(weight), -1)


def join_q5_1(weight: Bytes, scales: Halves, biases: Halves) -> Bytes:
    """Return Q5_1 blocks (R, bytes) of MLX's five-bit codes, scales and biases (R, groups)."""
    codes = unpack(weight, 5).reshape(-1, GROUP)
    blocks = np.empty((scales.size, 24), np.uint8)
    blocks[:, :2] = _raw(scales)
    blocks[:, 2:4] = _raw(biases)
    blocks[:, 4:8] = np.packbits(codes >> 4, axis=1, bitorder="little")
    blocks[:, 8:] = codes[:, :16] & 15 | codes[:, 16:] << 4
    return blocks.reshape(len(weight), -1)


def join_q8_0(codes: npt.NDArray[np.int8], scales: Halves) -> Bytes:
    """Return Q8_0 blocks (R, bytes) of signed codes (R, columns) and scales (R, groups)."""
    blocks = np.empty((scales.size, 34), np.uint8)
    blocks[:, :2] = _raw(scales)
    blocks[:, 2:] = codes.view(np.uint8).reshape(-1, GROUP)
    return blocks.reshape(len(codes), -1)


def _raw(halves: Halves) -> Bytes:
    return np.ascontiguousarray(halves).view(np.uint8).reshape(-1, 2)
