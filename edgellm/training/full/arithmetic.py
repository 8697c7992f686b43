"""Arithmetic with derivatives: products by weights that are learned, sums of rows."""

# T tokens, I in, O out, E hidden

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device
from edgellm.training.operations.kernel_products import KernelProducts

Floats = npt.NDArray[np.float32]


def stacked_product(
    x: mx.array,
    weights: Sequence[mx.array],
    products: KernelProducts,
    *,
    result: list[mx.array] | None = None,
) -> mx.array:
    """Return ``x @ weight.T`` (..., O) of several weights (O, I), results side by side.

    Args:
        x: what goes in (..., I).
        weights: that are multiplied by; derivatives are by these, too.
        products: multiply where there is no GPU.
        result: of the same call before, or empty, to be filled; None: none is kept.
    """
    if device.has_gpu():
        return x @ mx.concatenate([*weights]).T

    @mx.custom_function
    def product(x: mx.array, *weights: mx.array) -> mx.array:
        if result:
            return result[0]
        found = products.times(_rows(x), _stacked(weights))
        made = mx.array(found.reshape(*x.shape[:-1], -1))
        if result is not None:
            result.append(made)
        return made

    @product.vjp
    def product_vjp(
        primals: tuple[mx.array, ...], gradient: mx.array, _: mx.array
    ) -> tuple[mx.array, ...]:
        x, *weights = primals
        by_output, rows = _rows(gradient), _rows(x)
        by_x = products.summed_over_tokens(by_output.T, _stacked(weights))
        by_weight = products.times(products.turned(by_output), products.turned(rows))
        ends = np.cumsum([weight.shape[0] for weight in weights])[:-1]
        parts = np.split(by_weight, ends)
        return (mx.array(by_x.reshape(x.shape)), *map(mx.array, parts))

    return cast(mx.array, product(x, *weights))


def rows_summed(rows: mx.array, places: npt.NDArray[np.int64], count: int) -> mx.array:
    """Return (count, E): the sum of the rows (T, E) that each place has."""
    if device.has_gpu():
        return mx.zeros((count, rows.shape[-1])).at[mx.array(places)].add(rows)
    summed: Floats = np.zeros((count, rows.shape[-1]), np.float32)
    order = np.argsort(places, kind="stable")
    found, begins = np.unique(places[order], return_index=True)
    summed[found] = np.add.reduceat(_float(rows)[order], begins, axis=0)
    return mx.array(summed)


def _stacked(weights: Sequence[mx.array]) -> Floats:
    """Return weights (O, I) as one."""
    if len(weights) == 1:
        return _float(weights[0])
    return np.concatenate([_float(weight) for weight in weights])


def _float(array: mx.array) -> Floats:
    found: Floats = np.array(array, copy=False)
    return found


def _rows(array: mx.array) -> Floats:
    """Return (..., I) as (T, I)."""
    return _float(array).reshape(-1, array.shape[-1])
