"""Products by frozen weights, with derivatives by what goes in.

On a CPU they are edgellm's kernels, or BLAS where there are none: MLX's own loops take tens of
times as long. On a GPU they are MLX's.
"""

# T tokens, I in, O out, R rows of a weight

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device
from edgellm.errors import BackendError
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.cpu.linear import CpuLinear, make_linear
from edgellm.models.linear import DenseLinear, JoinedLinear, Linear, QuantizedLinear
from edgellm.training.operations.backward_product import BackwardProduct

Product = Callable[[mx.array], mx.array]
Floats = npt.NDArray[np.float32]
Rows = Callable[[Floats], Floats]

BLOCK_BYTES = 16 << 20
"""Of a weight's rows in float32 that are there at once where no kernel turns them."""


def frozen_product(linear: Linear, kernels: KernelEngine | None) -> Product:
    """Return ``linear`` with a derivative by what goes in, and none by its weight.

    Args:
        linear: the weight; its contents may change between calls.
        kernels: compute it; None where MLX does.
    """
    if device.has_gpu():
        return linear
    forwards, backwards = forwards_by(linear, kernels), backwards_by(linear, kernels)

    @mx.custom_function
    def product(x: mx.array) -> mx.array:
        return mx.array(forwards(_rows(x)).reshape(*x.shape[:-1], -1))

    @product.vjp
    def product_vjp(x: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
        return mx.array(backwards(_rows(gradient)).reshape(x.shape))

    return cast(Product, product)


def forwards_by(linear: Linear, kernels: KernelEngine | None) -> Rows:
    """Return what multiplies rows (T, I) by a weight and adds its bias: (T, O), its own memory."""
    product = make_linear(kernels, linear)
    if isinstance(product, CpuLinear):
        return product.rows
    return lambda x: np.array(product(mx.array(x)))


def backwards_by(linear: Linear, kernels: KernelEngine | None) -> Rows:
    """Return what multiplies derivatives (T, O) by a weight: (T, I)."""
    if kernels is not None:
        with suppress(BackendError):
            return BackwardProduct(kernels, linear)

    def multiply(by_output: Floats) -> Floats:
        parts = (
            by_output[:, begin : begin + len(rows)] @ np.array(rows, copy=False)
            for begin, rows in _unpacked(linear)
        )
        total: Floats = reduce(np.add, parts)
        return total

    return multiply


def _rows(array: mx.array) -> Floats:
    """Return (..., I) as (T, I)."""
    values: Floats = np.array(array.astype(mx.float32), copy=False)
    return values.reshape(-1, array.shape[-1])


def weight_rows(linear: Linear) -> Iterator[mx.array]:
    """Yield a weight's rows (R, I) in float32, in their order, some at a time."""
    for _, rows in _unpacked(linear):
        yield rows


def _unpacked(linear: Linear, begin: int = 0) -> Iterator[tuple[int, mx.array]]:
    """Yield a weight's rows (R, I) in float32, some at a time, with the number of the first."""
    if isinstance(linear, JoinedLinear):
        for member in linear.members:
            yield from _unpacked(member, begin)
            begin += member.out_features
        return
    assert isinstance(linear, DenseLinear | QuantizedLinear), "a layer's weight is one of these"
    columns = linear.weight.shape[1]
    if isinstance(linear, QuantizedLinear):
        columns = linear.scales.shape[1] * linear.quantization.group_size
    step = max(1, BLOCK_BYTES // (4 * columns))
    for first in range(0, linear.out_features, step):
        some = slice(first, min(first + step, linear.out_features))
        yield begin + first, _float_rows(linear, some)


def _float_rows(linear: DenseLinear | QuantizedLinear, some: slice) -> mx.array:
    if isinstance(linear, DenseLinear):
        return linear.weight[some].astype(mx.float32)
    biases = None
    scales = linear.scales[some]
    if linear.biases is not None:
        # as the kernels read affine codes
        scales = scales.astype(mx.float32)
        biases = linear.biases[some].astype(mx.float32)
    form = linear.quantization.as_config()
    return mx.dequantize(linear.weight[some], scales, biases, **form).astype(mx.float32)
