"""Rows of a weight matrix quantized by a kernel, in the thread that calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from edgellm.kernels.code_cache import function
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.codegen.weight_format import ITEM_BYTES, WeightFormat
from edgellm.kernels.host import code_cache, unavailable

Bytes = npt.NDArray[np.uint8]

KINDS = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
"""The kernels' word for each type, by safetensors' code."""

KERNEL_BITS = (2, 3, 4, 5, 6, 8)
"""Bits of the codes that the kernel makes; of 1 bit MLX's arithmetic is another."""

_INFINITY = 0x7F800000
"""The bits of infinity in float32; only NaNs are above."""


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Rows as MLX stores them, each part as its bytes.

    Attributes:
        parts: weight, scales and biases.
        is_finite: whether no number was infinite or NaN; where one was, the parts mean nothing.
    """

    parts: tuple[Bytes, Bytes, Bytes]
    is_finite: bool


def has_quantizer(bits: int) -> bool:
    """Return whether this processor has a kernel that makes codes of so many bits."""
    return bits in KERNEL_BITS and unavailable() is None


def quantize_rows(
    rows: Bytes, dtype: str, *, bits: int, group_size: int, scale_dtype: str
) -> QuantizedRows:
    """Quantize whole groups in MLX's affine mode, as ``mx.quantize`` does in float32.

    The interpreter's lock is free meanwhile. Codes of 8 bits are taken with the scales as stored.

    Args:
        rows: the bytes of the numbers.
        dtype: their type: ``F16``, ``BF16`` or ``F32``.
        bits: of a code, one of ``KERNEL_BITS``.
        group_size: numbers that share a scale: 32, 64 or 128.
        scale_dtype: the type of scales and biases.

    Raises:
        BackendError: LLVM refuses the kernel.
    """
    source = np.ascontiguousarray(rows).reshape(-1)
    made = WeightFormat(bits, group_size, KINDS[scale_dtype])
    count = source.nbytes // ITEM_BYTES[KINDS[dtype]]
    groups = count // group_size
    codes = np.empty(count * bits // 8, np.uint8)
    scales, biases = (np.empty(groups * made.item_bytes, np.uint8) for _ in range(2))
    largest = np.zeros(1, np.int32)
    kernel = _kernel(KINDS[dtype], made)
    addresses = [array.ctypes.data for array in (source, codes, scales, biases)]
    kernel(*addresses, groups, largest.ctypes.data)
    return QuantizedRows((codes, scales, biases), bool(largest[0] < _INFINITY))


@cache
def _kernel(kind: str, weight_format: WeightFormat) -> Callable[..., None]:
    code = code_cache(host_isas()[0])
    address = code.kernel("quantize_weights", kind, weight_format)
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    return function(address, pointer, pointer, pointer, pointer, integer, pointer)
