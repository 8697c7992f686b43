"""ggml's block types as MLX stores them, and back.

Both write a weight as scale * code + bias over runs of 32. Where a type says just that, its codes
are kept; where it says w = d * (q - 8), the bias is -8 * d, which float16 holds exactly. A block
has its scales, then its codes, mostly two a byte: the low halves are the first 16 weights, the high
halves the last 16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from edgellm.converters.tensors.bit_packing import pack, unpack
from edgellm.converters.tensors.source import Bytes

Halves = npt.NDArray[np.float16]
Parts = tuple[Bytes, Halves, Halves]
"""Packed codes (rows, bytes), scales and biases (rows, groups)."""

GROUP = 32
PIECE_BYTES = 1 << 18
"""Bytes that are in work at once: what the second cache level holds with all that is made of it."""

FLOATS: Mapping[str, str] = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
"""ggml's unquantized types, by safetensors' codes."""


def split_blocks(kind: str, rows: Bytes) -> Parts:
    """Rows of blocks, shape (R, bytes), as MLX stores them.

    Exact, save the scales of Q4_K and Q5_K, which are products of a float16 and six bits and are
    rounded to float16.
    """
    bits, block, take = AFFINE[kind]
    count, per_row = rows.shape[0], rows.shape[1] // block
    blocks = rows.reshape(-1, block)
    groups = per_row * (SUPERBLOCK // GROUP if block > SUPERBLOCK // 2 else 1)
    weight = np.empty((len(blocks), groups // per_row * GROUP * bits // 8), np.uint8)
    scales = np.empty((len(blocks), groups // per_row), np.float16)
    biases = np.empty_like(scales)
    step = max(1, PIECE_BYTES // block)
    # what overflows becomes infinite, and is refused where it is written
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            piece = slice(start, start + step)
            weight[piece], scales[piece], biases[piece] = take(blocks[piece])
    return weight.reshape(count, -1), scales.reshape(count, groups), biases.reshape(count, groups)


def _nibbles(packed: Bytes) -> Bytes:
    """Blocks' codes of four bits, shape (N, 16), in MLX's order."""
    pairs = np.ascontiguousarray(packed).view("<u2")
    made = np.empty(packed.shape, np.uint8)
    half = packed.shape[1] // 2
    for part, codes in ((made[:, :half], pairs), (made[:, half:], pairs >> 4)):
        bare = codes & 0x0F0F
        bare |= bare >> 4
        part[...] = bare
    return made


def _fifth_bits(packed: Bytes, high: Bytes) -> Bytes:
    """Blocks' codes of five bits, the fifth ones apart: (N, 16) and (N, 4) become (N, 20)."""
    codes = np.empty((len(packed), GROUP), np.uint8)
    codes[:, :16], codes[:, 16:] = packed & 0x0F, packed >> 4
    codes |= np.unpackbits(np.ascontiguousarray(high), axis=1, bitorder="little") << 4
    return pack(codes, 5)


def _half(blocks: Bytes, at: int) -> Halves:
    """The float16 at a byte of each block, shape (N, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")


@cache
def _products(factor: int) -> Halves:
    """Every float16 times a power of two: a table, since NumPy multiplies float16 one by one."""
    return (
        np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32) * factor
    ).astype(np.float16)


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
    return blocks[:, 2:] ^ np.uint8(0x80), scale, _times(scale, -128)


def _super_scales(blocks: Bytes) -> tuple[Halves, Halves]:
    """Scales and biases of the eight runs of a K block: six bits each in 12 bytes, times two float16s; shape (N, 8)."""
    low, middle, mixed = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scale = np.concatenate([low & 63, mixed & 15 | low >> 2 & 48], axis=1).astype(np.float32)
    least = np.concatenate([middle & 63, mixed >> 4 | middle >> 2 & 48], axis=1).astype(np.float32)
    scale *= _half(blocks, 0)
    least *= -_half(blocks, 2).astype(np.float32)
    return scale.astype(np.float16), least.astype(np.float16)


def _super_nibbles(packed: Bytes) -> Bytes:
    """The low bits of a K block, (N, 128), a byte a code: 64 codes lie in 32 bytes, low halves first; shape (N, 4, 2, 32)."""
    runs = packed.reshape(-1, 4, 1, GROUP)
    return np.concatenate([runs & 0x0F, runs >> 4], axis=2)


def _q4_k(blocks: Bytes) -> Parts:
    return pack(_super_nibbles(blocks[:, 16:]), 4).reshape(len(blocks), -1), *_super_scales(blocks)


def _q5_k(blocks: Bytes) -> Parts:
    codes = _super_nibbles(blocks[:, 48:]).reshape(-1, 8, GROUP)
    for run in range(8):
        codes[:, run] |= (blocks[:, 16:48] >> run & 1) << 4
    return pack(codes, 5).reshape(len(blocks), -1), *_super_scales(blocks)


SUPERBLOCK = 256

AFFINE: Mapping[str, tuple[int, int, Callable[[Bytes], Parts]]] = {
    "Q4_0": (4, 18, _q4_0),
    "Q4_1": (4, 20, _q4_1),
    "Q5_0": (5, 22, _q5_0),
    "Q5_1": (5, 24, _q5_1),
    "Q8_0": (8, 34, _q8_0),
    "Q4_K": (4, 144, _q4_k),
    "Q5_K": (5, 176, _q5_k),
}
"""Bits of a code, bytes of a block, and what takes blocks (N, bytes) apart."""

REQUANTIZED: Mapping[str, int] = {
    "Q2_K": 3, "Q3_K": 4, "Q6_K": 6, "TQ1_0": 2, "TQ2_0": 2, "IQ1_S": 2, "IQ1_M": 2, "IQ2_XXS": 3, "IQ2_XS": 3, "IQ2_S": 3,
    "IQ3_XXS": 4, "IQ3_S": 4, "IQ4_NL": 4, "IQ4_XS": 4, "MXFP4": 4,
}  # fmt: skip
"""The types that MLX cannot say, and the bits that their values are quantized to again."""


def dequantize_blocks(kind: str, rows: Bytes) -> npt.NDArray[np.float32]:
    """The values that rows of blocks (R, bytes) stand for, by the gguf library; shape (R, columns)."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):
        values: npt.NDArray[np.float32] = dequantize(rows, GGMLQuantizationType[kind])
    return values


def join_q4_1(weight: Bytes, scales: Halves, biases: Halves) -> Bytes:
    """Blocks of MLX's four-bit codes (R, bytes) with a scale and a bias for each 32 (R, groups)."""
    packed = weight.reshape(-1, 16)
    made = np.empty((scales.size, 20), np.uint8)
    made[:, :2], made[:, 2:4] = _raw(scales), _raw(biases)
    step = PIECE_BYTES // 16
    for start in range(0, len(packed), step):
        pairs = packed[start : start + step].astype("<u2")
        pairs |= pairs << 4
        pairs &= 0x0F0F
        made[start : start + step, 4:] = (pairs[:, :8] | pairs[:, 8:] << 4).view(np.uint8)
    return made.reshape(len(weight), -1)


def join_q5_1(weight: Bytes, scales: Halves, biases: Halves) -> Bytes:
    """As ``join_q4_1``, of five-bit codes."""
    codes = unpack(weight, 5).reshape(-1, GROUP)
    made = np.empty((scales.size, 24), np.uint8)
    made[:, :2], made[:, 2:4] = _raw(scales), _raw(biases)
    made[:, 4:8] = np.packbits(codes >> 4, axis=1, bitorder="little")
    made[:, 8:] = codes[:, :16] & 15 | codes[:, 16:] << 4
    return made.reshape(len(weight), -1)


def join_q8_0(codes: npt.NDArray[np.int8], scales: Halves) -> Bytes:
    """Blocks of signed codes (R, columns) with a scale for each 32 (R, groups)."""
    made = np.empty((scales.size, 34), np.uint8)
    made[:, :2] = _raw(scales)
    made[:, 2:] = codes.view(np.uint8).reshape(-1, GROUP)
    return made.reshape(len(codes), -1)


def _raw(halves: Halves) -> Bytes:
    return np.ascontiguousarray(halves).view(np.uint8).reshape(-1, 2)
