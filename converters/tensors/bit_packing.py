"""Codes of 2 to 8 bits between a byte each and MLX's packing: one after the other from the lowest bit on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def pack(codes: Bytes, bits: int) -> Bytes:
    """Codes of a byte each, shape (..., n) with n a multiple of 8, as (..., n * bits / 8) bytes."""
    if bits == 8:
        return codes
    if bits == 4:
        pairs = codes.view("<u2")
        made: Bytes = (pairs | pairs >> 4).astype(np.uint8)
        return made
    words = codes.view("<u8")
    # two codes become one of twice the bits, three times
    for width, kept in ((8, bits), (16, 2 * bits), (32, 4 * bits)):
        low = _mask(width, kept)
        words = words & low | words >> (width - kept) & np.uint64((int(low) << kept) & (2**64 - 1))
    return _bytes(words)[..., :bits].reshape(*codes.shape[:-1], -1)


def unpack(packed: Bytes, bits: int) -> Bytes:
    """The inverse of ``pack``: shape (..., m) with m a multiple of ``bits`` as (..., m * 8 / bits)."""
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
    for width, kept in ((32, 4 * bits), (16, 2 * bits), (8, bits)):
        low = _mask(width, kept)
        split = split & low | (split & np.uint64(int(low) << kept)) << (width - kept)
    return _bytes(split).reshape(*packed.shape[:-1], -1)


def affine_values(weight: Bytes, scales: Floats, biases: Floats, *, bits: int) -> Floats:
    """The matrix (rows, columns) that packed codes (rows, bytes) with scales and biases (rows, groups) stand for."""
    values = np.multiply(
        unpack(weight, bits).reshape(*scales.shape, -1), scales[..., None], dtype=np.float32
    )
    values += biases[..., None]
    return values.reshape(len(weight), -1)


def _mask(width: int, kept: int) -> np.uint64:
    """The lowest ``kept`` bits of every other run of ``width``."""
    return np.uint64(sum(((1 << kept) - 1) << place for place in range(0, 64, 2 * width)))


def _bytes(words: npt.NDArray[np.uint64]) -> Bytes:
    return words.view(np.uint8).reshape(*words.shape, 8)
