"""The loss of logits, and its derivatives by states and output matrix."""

# R rows after which something is learned, E hidden, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from edgellm.device import machine as device
from edgellm.training.elementwise.loss import losses_of
from edgellm.training.micro_batch import Ints
from edgellm.training.operations.kernel_products import KernelProducts

LOGITS = 4 << 20
"""Logits that are there at once."""


@dataclass(frozen=True, slots=True)
class HeadLoss:
    """A loss and its derivatives.

    Attributes:
        loss: summed over all rows.
        by_states: its derivative by the states (R, E).
        by_matrix: its derivative by the output matrix (V, E).
    """

    loss: float
    by_states: mx.array
    by_matrix: mx.array


def head_loss(
    states: mx.array,
    matrix: mx.array,
    targets: Ints,
    *,
    products: KernelProducts,
    cap: float | None,
    differentiate: bool,
) -> HeadLoss:
    """Return the loss of targets, for some rows at a time.

    Args:
        states: after the last norm (R, E).
        matrix: makes logits of them (V, E).
        targets: token ids (R,).
        products: multiply where there is no GPU.
        cap: the soft cap of logits, if any.
        differentiate: whether derivatives are computed; else they are 0.
    """
    if device.has_gpu():
        return _by_mlx(states, matrix, targets, cap, differentiate=differentiate)
    return _by_kernels(states, matrix, targets, products, cap, differentiate=differentiate)


def _by_kernels(
    states: mx.array,
    matrix: mx.array,
    targets: Ints,
    products: KernelProducts,
    cap: float | None,
    *,
    differentiate: bool,
) -> HeadLoss:
    x, w = np.array(states, copy=False), np.array(matrix, copy=False)
    total, by_x, by_w = 0.0, np.zeros_like(x), np.zeros_like(w)
    step = max(1, LOGITS // len(w))
    for begin in range(0, len(x), step):
        some = slice(begin, begin + step)
        logits = products.times(x[some], w)
        slope = None
        if cap is not None:
            share = np.tanh(logits / np.float32(cap))
            logits, slope = np.float32(cap) * share, 1 - np.square(share)
        places = np.arange(len(logits)), targets[some]
        logits -= logits.max(axis=-1, keepdims=True)
        asked = logits[places]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=-1, keepdims=True)
        total += float((np.log(sums[:, 0]) - asked).sum(dtype=np.float64))
        if not differentiate:
            continue
        logits /= sums
        logits[places] -= 1
        if slope is not None:
            logits *= slope
        by_x[some] = products.summed_over_tokens(logits.T, w)
        by_w += products.times(products.turned(logits), products.turned(x[some]))
    return HeadLoss(total, mx.array(by_x), mx.array(by_w))


def _by_mlx(
    states: mx.array, matrix: mx.array, targets: Ints, cap: float | None, *, differentiate: bool
) -> HeadLoss:
    def loss_of(states: mx.array, matrix: mx.array, targets: mx.array) -> mx.array:
        logits = states @ matrix.T
        if cap is not None:
            logits = cap * mx.tanh(logits / cap)
        return losses_of(logits, targets).sum()

    total, by_states, by_matrix = 0.0, mx.zeros_like(states), mx.zeros_like(matrix)
    step = max(1, LOGITS // matrix.shape[0])
    for begin in range(0, len(targets), step):
        some = slice(begin, begin + step)
        own = mx.array(targets[some])
        if differentiate:
            loss, (by_some, by_own) = mx.value_and_grad(loss_of, argnums=(0, 1))(
                states[some], matrix, own
            )
            by_states[some] = by_some
            by_matrix = by_matrix + by_own
        else:
            loss = loss_of(states[some], matrix, own)
        mx.eval(loss, by_states, by_matrix)
        total += float(np.array(loss))
    return HeadLoss(total, by_states, by_matrix)
