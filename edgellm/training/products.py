"""Products with derivatives: by frozen weights, and of two arrays that are learned.

On a CPU they are edgellm's kernels forwards and BLAS backwards, since MLX's own loops take tens of
times as long; on a GPU they are MLX's.
"""

# T tokens, I in, O out, R rows of a weight

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device
from edgellm.errors import BackendError
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.cpu.linear import CpuLinear, make_linear
from edgellm.models.linear import DenseLinear, JoinedLinear, Linear, QuantizedLinear

Product = Callable[[mx.array], mx.array]
Floats = npt.NDArray[np.float32]
_Part = tuple[int, int, Callable[[Floats], Floats]]

BLOCK_BYTES = 16 << 20
"""Of a weight's rows in float32 that are there at once."""


def frozen_product(linear: Linear, kernels: KernelEngine | None, *, keep: bool = False) -> Product:
    """Return ``linear`` with a derivative by what goes in, and none by its weight.

    Args:
        linear: the weight.
        kernels: compute it; None where MLX does.
        keep: whether the weight stays in memory also as the derivative takes it, of the type
            ``turned_dtype``; it must not be refilled then. Results are the same bits either way.
    """
    if device.has_gpu():
        return linear
    forwards = make_linear(kernels, linear)
    turned = _Turned(linear, kernels, keep=keep)

    @mx.custom_function
    def product(x: mx.array) -> mx.array:
        return forwards(x)

    @product.vjp
    def product_vjp(x: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
        by_output = _rows(gradient)
        by_x = np.zeros((len(by_output), x.shape[-1]), np.float32)
        for begin, end, multiply in turned.parts():
            by_x += multiply(by_output[:, begin:end])
        return mx.array(by_x.reshape(x.shape))

    return cast(Product, product)


def turned_dtype(kernels: KernelEngine | None) -> mx.Dtype:
    """Return the type of a weight as the derivative takes it.

    Where activations are rounded to int8 forwards, 16 bits are no loss backwards.
    """
    if kernels is not None and kernels.activations == "int8":
        return mx.bfloat16
    return mx.float32


class _Turned:
    """A weight (O, I) by which derivatives (T, O) are multiplied, some of its rows at a time."""

    def __init__(self, linear: Linear, kernels: KernelEngine | None, *, keep: bool) -> None:
        self._linear, self._kernels, self._keep = linear, kernels, keep
        self._kept: list[_Part] = []

    def parts(self) -> Iterator[_Part]:
        """Yield some rows' first and last number, and what multiplies by them: (T, R) to (T, I)."""
        if self._kept:
            yield from self._kept
            return
        for begin, rows in _unpacked(self._linear):
            part = begin, begin + len(rows), self._multiply_by(rows)
            if self._keep:
                self._kept.append(part)
            yield part

    def _multiply_by(self, rows: mx.array) -> Callable[[Floats], Floats]:
        if self._kernels is not None:
            # the kernels multiply by a weight's rows: those of the turned one
            turned = mx.contiguous(rows.astype(turned_dtype(self._kernels)).T)
            mx.eval(turned)
            with suppress(BackendError):
                product = CpuLinear(self._kernels, DenseLinear(turned))
                return lambda by_output: np.array(product(mx.array(by_output)), copy=False)
        own: Floats = np.array(rows, copy=False)
        return lambda by_output: by_output @ own


def learned_product(x: mx.array, weight: mx.array) -> mx.array:
    """Return ``x @ weight.T`` (..., O) of (..., I) and (O, I), with derivatives by both."""
    if device.has_gpu():
        return x @ weight.T
    return cast(mx.array, _learned(x, weight))


@mx.custom_function
def _learned(x: mx.array, weight: mx.array) -> mx.array:
    product = _rows(x) @ np.array(weight, copy=False).T
    return mx.array(product.reshape(*x.shape[:-1], -1))


@_learned.vjp
def _learned_vjp(
    primals: tuple[mx.array, mx.array], gradient: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    x, weight = primals
    by_output = _rows(gradient)
    by_x = by_output @ np.array(weight, copy=False)
    by_weight = by_output.T @ _rows(x)
    return mx.array(by_x.reshape(x.shape)), mx.array(by_weight)


def _rows(array: mx.array) -> Floats:
    """Return (..., I) as (T, I)."""
    values: Floats = np.array(array.astype(mx.float32), copy=False)
    return values.reshape(-1, array.shape[-1])


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
