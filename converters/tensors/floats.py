"""Bytes of floating types as float32 and back, in NumPy, which knows no bfloat16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.converters.tensors.source import Bytes

Floats = npt.NDArray[np.float32]


def floats(content: Bytes, dtype: str) -> Floats:
    """Return the values of bytes of type ``dtype`` (F16, BF16 or F32), in one row."""
    if dtype == "F32":
        return content.view(np.float32)
    if dtype == "F16":
        return content.view(np.float16).astype(np.float32)
    return (content.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def stored(values: Floats, dtype: str) -> Bytes:
    """Return the bytes of values in type ``dtype``, rounded to the nearest, halves to even."""
    if dtype == "F32":
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).reshape(-1).view(np.uint8)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    finite = np.isfinite(values)
    if not finite.all():  # rounding could carry a NaN into infinity: it is cut, and stays a NaN
        rounded = np.where(finite, rounded, bits >> 16 | 0x40 * np.isnan(values))
    return rounded.astype(np.uint16).reshape(-1).view(np.uint8)
