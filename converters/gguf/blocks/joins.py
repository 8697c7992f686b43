"""ggml's blocks put together from MLX's codes, scales and biases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.converters.gguf.blocks.affine_blocks import GROUP, Halves
from edgellm.converters.gguf.blocks.table import BATCH_BYTES
from edgellm.converters.tensors.bit_packing import unpack
from edgellm.converters.tensors.source import Bytes

Q4_1 = np.dtype([("scale", "<f2"), ("bias", "<f2"), ("codes", "V16")])
"""A block; its codes move as one item, which NumPy copies faster than 16 bytes of a row."""


def join_q4_1(weight: Bytes, scales: Halves, biases: Halves) -> Bytes:
    """Return Q4_1 blocks (R, bytes) of MLX's four-bit codes, scales and biases (R, groups)."""
    packed = weight.reshape(-1, 16)
    blocks = np.empty(scales.size, Q4_1)
    blocks["scale"] = scales.reshape(-1)
    blocks["bias"] = biases.reshape(-1)
    codes = blocks["codes"]
    step = BATCH_BYTES // 16
    for start in range(0, len(packed), step):
        # a code a byte, then the first 16 into the low halves, the last 16 into the high ones
        pairs = packed[start : start + step].astype("<u2")
        pairs |= pairs << 4
        pairs &= 0x0F0F
        codes[start : start + step] = (pairs[:, :8] | pairs[:, 8:] << 4).view("V16")[:, 0]
    return blocks.view(np.uint8).reshape(len(weight), -1)


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


def join_signed(weight: Bytes, scales: Halves) -> Bytes:
    """Return Q1_0 or Q2_0 blocks (R, bytes) of MLX's codes of one or two bits.

    Args:
        weight: packed codes (R, bytes), 16 bytes of them a block.
        scales: d of each block (R, blocks), minus which is the lowest value.
    """
    blocks = np.empty((scales.size, 18), np.uint8)
    blocks[:, :2] = _raw(scales)
    blocks[:, 2:] = weight.reshape(-1, 16)
    return blocks.reshape(len(weight), -1)


def join_ternary(weight: Bytes, scales: Halves) -> Bytes:
    """Return TQ2_0 blocks (R, bytes) of MLX's two-bit codes 0, 1 and 2.

    Args:
        weight: packed codes (R, bytes), 64 bytes of them a block.
        scales: d of each block (R, blocks), minus which is the lowest value.
    """
    # of 128 weights each 32 have two bits of the same 32 bytes
    codes = unpack(weight, 2).reshape(-1, 2, 4, 32)
    blocks = np.empty((scales.size, 66), np.uint8)
    packed = codes[:, :, 0] | codes[:, :, 1] << 2 | codes[:, :, 2] << 4 | codes[:, :, 3] << 6
    blocks[:, :64] = packed.reshape(-1, 64)
    blocks[:, 64:] = _raw(scales)
    return blocks.reshape(len(weight), -1)


def join_float4(weight: Bytes, scales: Bytes, group_size: int) -> Bytes:
    """Return MXFP4 or NVFP4 blocks (R, bytes) of MLX's float4 codes and scales (R, groups).

    The first has one group of 32 in a block, the second four of 16.
    """
    # a code a byte, then the first half of a group into low halves, the second into high ones
    codes = unpack(weight, 4).reshape(-1, 2, group_size // 2)
    packed = codes[:, 0] | codes[:, 1] << 4
    groups = {32: 1, 16: 4}[group_size]
    blocks = np.concatenate(
        [scales.reshape(-1, groups), packed.reshape(-1, groups * group_size // 2)], axis=1
    )
    return blocks.reshape(len(weight), -1)


def _raw(halves: Halves) -> Bytes:
    return np.ascontiguousarray(halves).view(np.uint8).reshape(-1, 2)
