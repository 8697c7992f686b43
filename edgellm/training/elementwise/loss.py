"""The loss of logits with its derivative: without a GPU on the kernels, or in NumPy."""

# R rows, V vocabulary

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device
from edgellm.kernels.codegen.abi import CROSS_ENTROPY
from edgellm.kernels.kernel_engine import KernelEngine, make_step, step_array

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def losses_of(logits: mx.array, targets: mx.array, kernels: KernelEngine | None = None) -> mx.array:
    """Return the loss of each target (R,), nats, of logits (R, V), in float32.

    Args:
        logits: (R, V).
        targets: token ids (R,).
        kernels: compute it; None where MLX and NumPy do.
    """
    if device.has_gpu():
        logits = logits.astype(mx.float32)
        likely = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return mx.logsumexp(logits, axis=-1) - likely
    places: Ints = np.array(targets).astype(np.int64)
    kept: list[Floats] = []

    @mx.custom_function
    def losses(logits: mx.array) -> mx.array:
        rows: Floats = np.array(logits.astype(mx.float32), copy=False)
        if kernels is None:
            found, by_logits = _by_numpy(rows, places)
        else:
            found, by_logits = _by_kernels(kernels, rows, places)
        kept.append(by_logits)
        return mx.array(found)

    @losses.vjp
    def losses_vjp(logits: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
        by_logits, factors = kept.pop(), np.array(gradient, copy=False)
        if np.any(factors != 1):
            by_logits *= factors[:, None]
        return mx.array(by_logits).astype(logits.dtype)

    return cast(mx.array, losses(logits))


def _by_numpy(logits: Floats, targets: Ints) -> tuple[Floats, Floats]:
    """Return the loss of each row (R,), and its derivatives (R, V)."""
    places = np.arange(len(logits)), targets
    shares = logits - logits.max(axis=-1, keepdims=True)
    likely = shares[places]
    np.exp(shares, out=shares)
    sums = shares.sum(axis=-1)
    shares /= sums[:, None]
    shares[places] -= 1
    return np.log(sums) - likely, shares


def _by_kernels(engine: KernelEngine, logits: Floats, targets: Ints) -> tuple[Floats, Floats]:
    """Return the same."""
    logits = np.ascontiguousarray(logits)
    by_logits, parts = np.empty_like(logits), np.empty((len(logits), 2), np.float32)
    step = make_step(
        engine.kernel("cross_entropy"),
        CROSS_ENTROPY,
        logits=logits.ctypes.data,
        targets=targets.ctypes.data,
        by_logits=by_logits.ctypes.data,
        parts=parts.ctypes.data,
        vocabulary=logits.shape[1],
    )
    with engine.lock:
        engine.run(step_array([step]), len(logits))
    return np.log(parts[:, 0]) - parts[:, 1], by_logits
