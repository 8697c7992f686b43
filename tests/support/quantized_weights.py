"""Weights that MLX has quantized, as the bench's torch backend has them."""

import mlx.core as mx
import numpy as np
import torch

from edgellm.bench.torch_backend.weights import QuantizedWeight, unpack

OUT_FEATURES, IN_FEATURES = 200, 384
"""No whole number of the kernels' blocks of rows."""


def quantized_weight(bits, group_size, dtype=mx.bfloat16):
    """Return random codes as MLX makes them, and the numbers (N, K) that they stand for."""
    mx.random.seed(bits * group_size)
    weight = mx.random.normal((OUT_FEATURES, IN_FEATURES)).astype(dtype)
    packed, scales, biases = mx.quantize(weight, group_size=group_size, bits=bits)
    exact = [part.astype(mx.float32) for part in (scales, biases)]
    numbers = mx.dequantize(packed, *exact, group_size=group_size, bits=bits)
    stored_dtype = {mx.bfloat16: torch.bfloat16, mx.float16: torch.float16}[dtype]
    stored = [torch.from_numpy(np.array(part)).to(stored_dtype) for part in exact]
    codes = unpack(torch.from_numpy(np.array(packed).view(np.int32)), bits)
    return QuantizedWeight(codes, *stored, bits), torch.from_numpy(np.array(numbers))


def relative_error(found, expected):
    """Return the largest difference, as a share of the largest number expected."""
    return float((found.float() - expected).abs().max() / expected.abs().max())
