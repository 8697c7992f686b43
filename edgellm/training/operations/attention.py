"""Attention of plain keys and values, and its derivatives, in NumPy where there is no GPU.

MLX's own products of float32 matrices on a CPU take tens of times as long.
"""

# H query heads, G key/value heads, L queries, S keys, D numbers of a head

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.kv_cache.kv_format import KeysOrValues, QuantizedKV

Floats = npt.NDArray[np.float32]

SMALL_PRODUCT = 1 << 18
"""Multiplications that OpenBLAS leaves to one thread.

Its threads wait for each other by spinning: on a busy machine a small product then takes tens of
times as long.
"""


def attention_by_numpy(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    *,
    scale: float,
    mask: mx.array | str | None,
    cap: float | None = None,
) -> mx.array:
    """Return softmax(scale Q K^T) V of one sequence, (1, H, L, D), which can be differentiated.

    Args:
        queries: (1, H, L, D), in float32.
        keys: (1, G, S, D), not quantized.
        values: (1, G, S, D), not quantized.
        scale: the factor of the scores.
        mask: as ``kv_cache.cache.Mask``.
        cap: the soft cap of scores, if any.
    """
    assert not isinstance(keys, QuantizedKV)
    assert not isinstance(values, QuantizedKV), "derivatives are taken of plain caches"
    hidden = _hidden(mask, queries.shape[2], keys.shape[2])
    group = queries.shape[1] // keys.shape[1]

    @mx.custom_function
    def attend(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        q, k, v = np.array(queries)[0], np.array(keys)[0], np.array(values)[0]
        length, total = q.shape[1], k.shape[1]
        output = np.empty((len(k), group, *q.shape[1:]), np.float32)
        grouped = q.reshape(output.shape)
        rows = max(1, SMALL_PRODUCT // (group * total * q.shape[2]))
        for begin in range(0, length, rows):
            end = min(begin + rows, length)
            seen = total
            if mask == "causal":
                seen -= length - end
            block = None
            if hidden is not None:
                block = np.tile(hidden[begin:end, :seen], (group, 1))
            part = grouped[:, :, begin:end].reshape(len(k), -1, q.shape[2])
            weights, _ = _weights(part, k[:, :seen], scale, cap, block)
            target = output[:, :, begin:end]
            target[:] = (weights @ v[:, :seen]).reshape(target.shape)
        return mx.array(output.reshape(1, *q.shape))

    @attend.vjp
    def attend_vjp(
        primals: tuple[mx.array, mx.array, mx.array], gradient: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        q, k, v = (np.array(array)[0] for array in primals)
        by_output = np.array(gradient)[0]
        by_q, by_k, by_v = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        for head in range(len(q)):
            kv_head = head // group
            weights, slope = _weights(q[head], k[kv_head], scale, cap, hidden)
            by_weights = by_output[head] @ v[kv_head].T
            # softmax's derivative: w * (g - sum(w * g)) for each query
            total = np.sum(by_weights * weights, axis=-1, keepdims=True)
            by_scores = weights * (by_weights - total) * slope * np.float32(scale)
            by_q[head] = by_scores @ k[kv_head]
            by_k[kv_head] += by_scores.T @ q[head]
            by_v[kv_head] += weights.T @ by_output[head]
        return mx.array(by_q[None]), mx.array(by_k[None]), mx.array(by_v[None])

    return cast(mx.array, attend(queries, keys, values))


def _hidden(mask: mx.array | str | None, length: int, total: int) -> npt.NDArray[np.bool_] | None:
    """Return which keys a query may not see, (L, S); None: it sees all."""
    if mask is None:
        return None
    if isinstance(mask, str):  # causal: the last L keys are those of the queries
        positions = np.arange(total)
        return positions > positions[total - length :, None]
    return ~np.array(mask).reshape(length, total)


def _weights(
    queries: Floats,
    keys: Floats,
    scale: float,
    cap: float | None,
    hidden: npt.NDArray[np.bool_] | None,
) -> tuple[Floats, Floats]:
    """Return heads' softmax, (..., L, S), and its cap's derivative by the scores, 1 without one."""
    scores = (queries * np.float32(scale)) @ keys.swapaxes(-1, -2)
    slope = np.ones(1, np.float32)
    if cap is not None:
        share = np.tanh(scores / np.float32(cap))
        scores, slope = np.float32(cap) * share, 1 - np.square(share)
    if hidden is not None:
        np.copyto(scores, -np.inf, where=hidden)
    scores -= scores.max(axis=-1, keepdims=True)
    weights: Floats = np.exp(scores, out=scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights, slope
