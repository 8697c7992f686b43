"""The loss of logits, with its derivative, in NumPy where there is no GPU."""

# R rows, V vocabulary

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.device import machine as device

Floats = npt.NDArray[np.float32]


def losses_of(logits: mx.array, targets: mx.array) -> mx.array:
    """Return the loss of each target (R,), nats, of logits (R, V), in float32."""
    if device.has_gpu():
        logits = logits.astype(mx.float32)
        likely = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return mx.logsumexp(logits, axis=-1) - likely
    places: npt.NDArray[np.int64] = np.array(targets).astype(np.int64)
    kept: list[Floats] = []

    @mx.custom_function
    def losses(logits: mx.array) -> mx.array:
        shares: Floats = np.array(logits.astype(mx.float32))
        rows = np.arange(len(shares))
        shares -= shares.max(axis=-1, keepdims=True)
        likely = shares[rows, places]
        np.exp(shares, out=shares)
        sums = shares.sum(axis=-1)
        shares /= sums[:, None]
        # what the derivative is made of
        shares[rows, places] -= 1
        kept.append(shares)
        return mx.array(np.log(sums) - likely)

    @losses.vjp
    def losses_vjp(logits: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
        by_logits = kept.pop()
        by_logits *= np.array(gradient, copy=False)[:, None]
        return mx.array(by_logits).astype(logits.dtype)

    return cast(mx.array, losses(logits))
