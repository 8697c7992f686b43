"""Attention of plain keys and values, and its derivatives, in NumPy where there is no GPU.

MLX's own products of float32 matrices on a CPU take tens of times as long.
"""

# H query heads, G key/value heads, L queries, S keys, D numbers of a head

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    scores = Scores(scale, cap, mask == "causal", _hidden(mask, queries.shape[2], keys.shape[2]))

    @mx.custom_function
    def attend(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        q, k, v = (_heads(array) for array in (queries, keys, values))
        return mx.array(attended(q, k, v, scores)[None])

    @attend.vjp
    def attend_vjp(
        primals: tuple[mx.array, mx.array, mx.array], gradient: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        q, k, v, by_output = (_heads(array) for array in (*primals, gradient))
        by_q, by_k, by_v = attended_derivatives(q, k, v, by_output, scores=scores)
        return mx.array(by_q[None]), mx.array(by_k[None]), mx.array(by_v[None])

    return cast(mx.array, attend(queries, keys, values))


@dataclass(frozen=True, slots=True)
class Scores:
    """How queries score keys.

    Attributes:
        scale: the factor of the scores.
        cap: the soft cap of scores, if any.
        causal: whether a query sees no key after its own, of which ``hidden`` tells, too.
        hidden: which keys a query may not see, (L, S); None: it sees all.
    """

    scale: float
    cap: float | None
    causal: bool
    hidden: npt.NDArray[np.bool_] | None

    @classmethod
    def of_causal(cls, length: int, scale: float, cap: float | None) -> Scores:
        """Return those of a sequence whose tokens see what is before them."""
        return cls(scale, cap, causal=True, hidden=_hidden("causal", length, length))


def attended(q: Floats, k: Floats, v: Floats, scores: Scores) -> Floats:
    """Return what queries (H, L, D) attend to, of keys and values (G, S, D)."""
    group = len(q) // len(k)
    output = np.empty((len(k), group, *q.shape[1:]), np.float32)
    grouped = q.reshape(output.shape)
    for begin, end, seen, block in _parts(q, k, scores):
        part = grouped[:, :, begin:end].reshape(len(k), -1, q.shape[2])
        weights, _ = _weights(part, k[:, :seen], scores, block)
        target = output[:, :, begin:end]
        target[:] = (weights @ v[:, :seen]).reshape(target.shape)
    return output.reshape(q.shape)


def attended_derivatives(
    q: Floats, k: Floats, v: Floats, by_output: Floats, *, scores: Scores
) -> tuple[Floats, Floats, Floats]:
    """Return derivatives by queries, keys and values, of those by what ``attended`` returned."""
    by_k, by_v = np.zeros_like(k), np.zeros_like(v)
    by_q = np.empty((len(k), len(q) // len(k), *q.shape[1:]), np.float32)
    grouped, by_grouped = q.reshape(by_q.shape), by_output.reshape(by_q.shape)
    for begin, end, seen, block in _parts(q, k, scores):
        part, by_part = (
            array[:, :, begin:end].reshape(len(k), -1, q.shape[2])
            for array in (grouped, by_grouped)
        )
        weights, slope = _weights(part, k[:, :seen], scores, block)
        by_v[:, :seen] += weights.swapaxes(1, 2) @ by_part
        # softmax's derivative: w * (g - sum(w * g)) for each query
        by_scores = by_part @ v[:, :seen].swapaxes(1, 2)
        by_scores -= np.einsum("hqs,hqs->hq", by_scores, weights)[..., None]
        by_scores *= weights
        by_scores *= slope * np.float32(scores.scale)
        target = by_q[:, :, begin:end]
        target[:] = (by_scores @ k[:, :seen]).reshape(target.shape)
        by_k[:, :seen] += by_scores.swapaxes(1, 2) @ part
    return by_q.reshape(q.shape), by_k, by_v


def _parts(
    queries: Floats, keys: Floats, scores: Scores
) -> Iterator[tuple[int, int, int, npt.NDArray[np.bool_] | None]]:
    """Yield queries from one place to another, the keys that they see at most, and those hidden.

    So few queries at a time that BLAS leaves each product to one thread. What is hidden has a row
    for each query of each head that shares keys.
    """
    length, total = queries.shape[1], keys.shape[1]
    group = len(queries) // len(keys)
    rows = max(1, SMALL_PRODUCT // (group * total * queries.shape[2]))
    for begin in range(0, length, rows):
        end = min(begin + rows, length)
        seen = total
        if scores.causal:
            seen -= length - end
        block = None
        if scores.hidden is not None:
            block = np.tile(scores.hidden[begin:end, :seen], (group, 1))
        yield begin, end, seen, block


def _heads(array: mx.array) -> Floats:
    """Return (1, H, L, D) as (H, L, D), one number after the other in memory."""
    return np.ascontiguousarray(np.array(array, copy=False)[0])


def _hidden(mask: mx.array | str | None, length: int, total: int) -> npt.NDArray[np.bool_] | None:
    """Return which keys a query may not see, (L, S); None: it sees all."""
    if mask is None:
        return None
    if isinstance(mask, str):  # causal: the last L keys are those of the queries
        positions = np.arange(total)
        return positions > positions[total - length :, None]
    return ~np.array(mask).reshape(length, total)


def _weights(
    queries: Floats, keys: Floats, scores: Scores, hidden: npt.NDArray[np.bool_] | None
) -> tuple[Floats, Floats]:
    """Return heads' softmax, (..., L, S), and its cap's derivative by the scores, 1 without one."""
    found = (queries * np.float32(scores.scale)) @ keys.swapaxes(-1, -2)
    slope = np.ones(1, np.float32)
    if scores.cap is not None:
        share = np.tanh(found / np.float32(scores.cap))
        found, slope = np.float32(scores.cap) * share, 1 - np.square(share)
    if hidden is not None:
        np.copyto(found, -np.inf, where=hidden)
    found -= found.max(axis=-1, keepdims=True)
    weights: Floats = np.exp(found, out=found)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights, slope
