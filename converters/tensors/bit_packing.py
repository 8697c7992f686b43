"""Codes of 1 to 8 bits, a byte each or in MLX's packing: from the lowest bit on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def pack(codes: Bytes, bits: int) -> Bytes:
    """Pack codes of a byte each: (..., n) with n a multiple of 8 becomes (..., n * bits / 8)."""
    if bits == 8:
        return codes
    if bits == 4:
        pairs = codes.view("<u2")
        made: Bytes = (pairs | pairs >> 4).astype(np.uint8)
        return made
    words = codes.view("<u8")
    # two codes become one of twice the bits, three times
    for width, used in ((8, bits), (16, 2 * bits), (32, 4 * bits)):
        low = _mask(width, used)
        words = words & low | words >> (width - used) & np.uint64((int(low) << used) & (2**64 - 1))
    return _bytes(words)[..., :bits].reshape(*codes.shape[:-1], -1)


def unpack(packed: Bytes, bits: int) -> Bytes:
    """Undo ``pack``: (..., m) with m a multiple of ``bits`` becomes (..., m * 8 / bits)."""
    if bits == 8:
        return packed
    if bits == 4:
        pairs = packed.astype("<u2")
        codes: Bytes = ((pairs | pairs << 4) & 0x0F0F).view(np.uint8)
        return codes
    groups = packed.reshape(*packed.shape[:-1], -1, bits)
    words = np.zeros((*groups.shape[:-1], 8), np.uint8)
    words[..., :bits] = groups
    split = words.view("<u8")
    for width, used in ((32, 4 * bits), (16, 2 * bits), (8, bits)):
        low = _mask(width, used)
        split = split & low | (split & np.uint64(int(low) << used)) << (width - used)
    return _bytes(split).reshape(*packed.shape[:-1], -1)


def affine_values(weight: Bytes, scales: Floats, biases: Floats, *, bits: int) -> Floats:
    """Return the matrix (rows, columns) of packed codes; scales and biases are (rows, groups)."""
    values = np.multiply(
        unpack(weight, bits).reshape(*scales.shape, -1), scales[..., None], dtype=np.float32
    )
    values += biases[..., None]
    return values.reshape(len(weight), -1)


def _mask(width: int, used: int) -> np.uint64:
    """Return a mask of the lowest ``used`` bits of every other run of ``width``."""
    return np.uint64(sum(((1 << used) - 1) << place for place in range(0, 64, 2 * width)))


def _bytes(words: npt.NDArray[np.uint64]) -> Bytes:
    return words.view(np.uint8).reshape(*words.shape, 8)
