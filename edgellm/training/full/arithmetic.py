"""Arithmetic with derivatives: products by learned weights, gates, sums of rows.

On a CPU they are BLAS and NumPy: MLX's own loops take ten times as long and more.
"""

# T tokens, I in, O out, E hidden, F inner

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device

Floats = npt.NDArray[np.float32]


def stacked_product(x: mx.array, weights: Sequence[mx.array]) -> mx.array:
    """Return ``x @ weight.T`` (..., O) of several weights (O, I), results side by side."""
    if device.has_gpu():
        return x @ mx.concatenate([*weights]).T
    return cast(mx.array, _stacked(x, *weights))


@mx.custom_function
def _stacked(x: mx.array, *weights: mx.array) -> mx.array:
    rows = _rows(x)
    product: Floats = np.empty((len(rows), sum(weight.shape[0] for weight in weights)), np.float32)
    begin = 0
    for weight in weights:
        end = begin + weight.shape[0]
        np.matmul(rows, _float(weight).T, out=product[:, begin:end])
        begin = end
    return mx.array(product.reshape(*x.shape[:-1], -1))


@_stacked.vjp
def _stacked_vjp(
    primals: tuple[mx.array, ...], gradient: mx.array, _: mx.array
) -> tuple[mx.array, ...]:
    x, *weights = primals
    by_output, rows = _rows(gradient), _rows(x)
    by_x: Floats | None = None
    by_weights = []
    begin = 0
    for weight in weights:
        end = begin + weight.shape[0]
        own = by_output[:, begin:end]
        part = own @ _float(weight)
        by_x = part if by_x is None else np.add(by_x, part, out=by_x)
        by_weights.append(mx.array(own.T @ rows))
        begin = end
    assert by_x is not None, "a product has a weight"
    return (mx.array(by_x.reshape(x.shape)), *by_weights)


def silu_gate(gate: mx.array, up: mx.array) -> mx.array:
    """Return ``silu(gate) * up`` of two arrays (..., F), on a CPU."""
    return cast(mx.array, _silu_gate(gate, up))


@mx.custom_function
def _silu_gate(gate: mx.array, up: mx.array) -> mx.array:
    g = _float(gate)
    share = _sigmoid(g)
    share *= g
    share *= _float(up)
    return mx.array(share)


@_silu_gate.vjp
def _silu_gate_vjp(
    primals: tuple[mx.array, mx.array], gradient: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    g, u, by_output = (_float(array) for array in (*primals, gradient))
    share = _sigmoid(g)
    by_up = share * g
    by_up *= by_output
    # silu'(g) = s (1 + g (1 - s))
    by_gate = 1 - share
    by_gate *= g
    by_gate += 1
    by_gate *= share
    by_gate *= u
    by_gate *= by_output
    return mx.array(by_gate), mx.array(by_up)


def rows_summed(rows: mx.array, places: npt.NDArray[np.int64], count: int) -> mx.array:
    """Return (count, E): the sum of the rows (T, E) that each place has."""
    if device.has_gpu():
        return mx.zeros((count, rows.shape[-1])).at[mx.array(places)].add(rows)
    summed: Floats = np.zeros((count, rows.shape[-1]), np.float32)
    order = np.argsort(places, kind="stable")
    found, begins = np.unique(places[order], return_index=True)
    summed[found] = np.add.reduceat(_float(rows)[order], begins, axis=0)
    return mx.array(summed)


def _sigmoid(values: Floats) -> Floats:
    share = np.negative(values)
    with np.errstate(over="ignore"):  # of large negative ones: 1 / inf is 0
        np.exp(share, out=share)
    share += 1
    return np.reciprocal(share, out=share)


def _float(array: mx.array) -> Floats:
    found: Floats = np.array(array, copy=False)
    return found


def _rows(array: mx.array) -> Floats:
    """Return (..., I) as (T, I)."""
    return _float(array).reshape(-1, array.shape[-1])
