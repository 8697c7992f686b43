"""The table of ggml's types: what each becomes, and what takes it apart.

Types whose values MLX's forms can say are taken apart (``BLOCKS``); the others are dequantized, and
quantized again (``REQUANTIZED``) to as many bits as leave the model's error within 5 % of what the
type itself costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters.gguf.blocks import affine_blocks as affine
from edgellm.converters.gguf.blocks import level_blocks as levels
from edgellm.converters.gguf.blocks.affine_blocks import GROUP, Halves, Parts
from edgellm.converters.gguf.blocks.level_blocks import block_scale, by_levels
from edgellm.converters.tensors.source import Bytes

# N blocks, R rows

BATCH_BYTES = 1 << 18
"""Bytes of blocks in work at once: with all that is made of them they fit a second-level cache."""

FLOATS = ("F32", "F16", "BF16")
"""ggml's unquantized types, which safetensors calls the same."""


@dataclass(frozen=True, slots=True)
class BlockType:
    """A block type that MLX can say.

    Attributes:
        form: MLX's.
        weights: of a block, a multiple of the form's group.
        nbytes: bytes of a block.
        unpack: takes blocks (N, nbytes) apart into packed codes (N, weights * bits / 8), scales and
            biases (N, groups).
        change: where evenly spaced levels miss some values, the root mean square of that over the
            weights'.
    """

    form: Quantization
    weights: int
    nbytes: int
    unpack: Callable[[Bytes], Parts]
    change: float = 0.0


def _affine(bits: int, group: int = GROUP) -> Quantization:
    return Quantization(bits, group)


BLOCKS: Mapping[str, BlockType] = {
    "Q4_0": BlockType(_affine(4), 32, 18, affine.q4_0),
    "Q4_1": BlockType(_affine(4), 32, 20, affine.q4_1),
    "Q5_0": BlockType(_affine(5), 32, 22, affine.q5_0),
    "Q5_1": BlockType(_affine(5), 32, 24, affine.q5_1),
    "Q8_0": BlockType(_affine(8), 32, 34, affine.q8_0),
    "Q4_K": BlockType(_affine(4), 256, 144, affine.q4_k),
    "Q5_K": BlockType(_affine(5), 256, 176, affine.q5_k),
    "Q1_0": BlockType(_affine(1, 128), 128, 18, affine.q1_0),
    "Q2_0": BlockType(_affine(2, 64), 64, 18, affine.q2_0),
    "MXFP4": BlockType(Quantization(4, 32, "mxfp4"), 32, 17, affine.mxfp4),
    "NVFP4": BlockType(Quantization(4, 16, "nvfp4"), 64, 36, affine.nvfp4),
    # -1, 0 or 1: five a byte in qs 48 bytes, four a byte in qh 4; d f16
    "TQ1_0": BlockType(_affine(2), 256, 54, by_levels("TQ1_0", 2, block_scale(52, 8), first=-1)),
    # -1, 0 or 1, four a byte: qs 64 bytes, d f16
    "TQ2_0": BlockType(_affine(2), 256, 66, by_levels("TQ2_0", 2, block_scale(64, 8), first=-1)),
    # -1, 0 or 1 and an eighth more or less: d f16, qs 32 bytes, qh 8 uint16
    "IQ1_S": BlockType(
        _affine(2), 256, 50, by_levels("IQ1_S", 2, levels.iq1_s, first=levels.iq1_s_lowest)
    ),
    # 8, 25 or 43 and a sign: here 8.5, 25.5 and 42.5
    "IQ2_XXS": BlockType(
        _affine(3), 256, 66, by_levels("IQ2_XXS", 3, levels.iq2_xxs, first=-42.5, step=17), 0.03
    ),
    # 4, 12, 20 to 52, or 62, which becomes 60, and a sign
    "IQ3_XXS": BlockType(
        _affine(4), 256, 98, by_levels("IQ3_XXS", 4, levels.iq3_xxs, first=-60, step=8), 0.02
    ),
    # 1, 3, 5 to 15 and a sign
    "IQ3_S": BlockType(
        _affine(4), 256, 110, by_levels("IQ3_S", 4, levels.iq3_s, first=-15, step=2)
    ),
    # 16 uneven numbers from -127 to 113: d f16, qs 16 bytes
    "IQ4_NL": BlockType(_affine(8), 32, 18, by_levels("IQ4_NL", 8, block_scale(0, 1), first=-128)),
    # the same with a six-bit scale a group, here multiples of four from -127 on
    "IQ4_XS": BlockType(
        _affine(6), 256, 136, by_levels("IQ4_XS", 6, levels.iq4_xs, first=-127, step=4), 0.02
    ),
}
"""The types that are taken apart; sizes of a block in weights and in bytes."""

REQUANTIZED: Mapping[str, int] = {
    # two groups of 16, of other scales, in each of 32
    # scales 16 bytes (4 bits of scale, 4 of minimum), qs 64, d f16, dmin f16
    "Q2_K": 4,
    # a bias of -4 * scale: hmask 32 bytes, qs 64, scales 12 (6 bits each), d f16
    "Q3_K": 5,
    # a bias of -32 * scale: ql 128 bytes, qh 64, scales 16 int8, d f16
    "Q6_K": 8,
    # indexes into tables of eight values, with signs and scales
    "IQ1_M": 4,
    "IQ2_XS": 4,
    "IQ2_S": 5,
}
"""The types that MLX cannot say in groups of 32, and the bits that their values get instead."""

WITHOUT_VALUES = ("Q1_0", "Q2_0")
"""Types that the gguf library (0.19) does not dequantize."""

FORMS: Mapping[str, Quantization] = {
    **{kind: _affine(bits) for kind, bits in REQUANTIZED.items()},
    **{kind: block.form for kind, block in BLOCKS.items()},
}
"""The form in MLX of every quantized type that is read."""


def split_blocks(kind: str, rows: Bytes) -> Parts:
    """Return rows of blocks, shape (R, bytes), as MLX stores them.

    Scales that are products of a float16 and a few bits are rounded to float16.

    Args:
        kind: one of ``BLOCKS``.
        rows: whole blocks.

    Returns:
        Packed codes (R, bytes), scales (R, groups), and biases as these or None.
    """
    block = BLOCKS[kind]
    blocks = rows.reshape(-1, block.nbytes)
    shape = (len(blocks), block.weights // block.form.group_size)
    weight = np.empty((len(blocks), block.weights * block.form.bits // 8), np.uint8)
    scales: Halves | Bytes = np.empty(shape, np.uint8)
    biases: Halves | None = None
    if block.form.mode == "affine":
        scales, biases = np.empty(shape, np.float16), np.empty(shape, np.float16)
    step = max(1, BATCH_BYTES // block.nbytes)
    # what overflows becomes infinite, and is refused where it is written
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            batch = slice(start, start + step)
            weight[batch], scales[batch], batch_biases = block.unpack(blocks[batch])
            if biases is not None and batch_biases is not None:
                biases[batch] = batch_biases
    count = len(rows)
    if biases is not None:
        biases = biases.reshape(count, -1)
    return weight.reshape(count, -1), scales.reshape(count, -1), biases
