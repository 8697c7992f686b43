"""A LLaMA layer's parts and their derivatives in NumPy, in float32: what a measured recipe needs, on any machine.

N tokens, B sequences, T tokens of each (N = B * T), E features, H query heads, G key/value heads, D
head size. Each ``..._back`` takes the derivative of the loss by a result and returns those by what
it was made from.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """RMS norm over the last axis."""
    result: Floats = x * _scale(x, eps) * weight
    return result


def norm_back(x: Floats, weight: Floats, eps: float, gradient: Floats) -> Floats:
    """The derivative by ``x``."""
    scale = _scale(x, eps)
    weighted = gradient * weight
    result: Floats = scale * weighted - x * scale**3 * np.mean(weighted * x, axis=-1, keepdims=True)
    return result


def turned(x: Floats, angles: Floats) -> Floats:
    """Rotary positions: x is (B, heads, T, D), angles (T, D / 2). With the angles' negatives, its own derivative."""
    first, second = np.split(x, 2, axis=-1)
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def split(x: Floats, sequences: int, heads: int) -> Floats:
    """(N, heads * D) as (B, heads, T, D)."""
    return x.reshape(sequences, x.shape[0] // sequences, heads, -1).swapaxes(1, 2)


def join(x: Floats) -> Floats:
    """The inverse of ``split``."""
    sequences, heads, length, size = x.shape
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(sequences * length, heads * size)


def attention(queries: Floats, keys: Floats, values: Floats, window: int | None) -> Floats:
    """Causal attention over the last ``window`` tokens, if there is one: (B, H, T, D) from (B, H or G, T, D)."""
    share = queries.shape[1] // keys.shape[1]
    out = np.empty_like(queries)
    for head in range(queries.shape[1]):
        out[:, head] = (
            _weights(queries[:, head], keys[:, head // share], window) @ values[:, head // share]
        )
    return out


def attention_back(
    queries: Floats, keys: Floats, values: Floats, window: int | None, gradient: Floats
) -> tuple[Floats, Floats, Floats]:
    """The derivatives by queries, keys and values."""
    share, scale = queries.shape[1] // keys.shape[1], 1 / math.sqrt(queries.shape[-1])
    by_queries, by_keys, by_values = (
        np.empty_like(queries),
        np.zeros_like(keys),
        np.zeros_like(values),
    )
    for head in range(queries.shape[1]):
        group = head // share
        weights = _weights(queries[:, head], keys[:, group], window)
        by_weights = gradient[:, head] @ values[:, group].swapaxes(1, 2)
        by_scores = (
            weights
            * (by_weights - np.sum(by_weights * weights, axis=-1, keepdims=True))
            * np.float32(scale)
        )
        by_queries[:, head] = by_scores @ keys[:, group]
        by_keys[:, group] += by_scores.swapaxes(1, 2) @ queries[:, head]
        by_values[:, group] += weights.swapaxes(1, 2) @ gradient[:, head]
    return by_queries, by_keys, by_values


def gated(gate: Floats, up: Floats) -> Floats:
    """``silu(gate) * up``."""
    return gate * _sigmoid(gate) * up


def gated_back(gate: Floats, up: Floats, gradient: Floats) -> tuple[Floats, Floats]:
    """The derivatives by ``gate`` and by ``up``."""
    open_ = _sigmoid(gate)
    return gradient * up * open_ * (1 + gate * (1 - open_)), gradient * gate * open_


def _scale(x: Floats, eps: float) -> Floats:
    result: Floats = 1 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(eps))
    return result


def _sigmoid(x: Floats) -> Floats:
    result: Floats = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))
    return result


def _weights(queries: Floats, keys: Floats, window: int | None) -> Floats:
    """How much each token attends to each other one, (B, T, T)."""
    scores = queries @ keys.swapaxes(1, 2) * np.float32(1 / math.sqrt(queries.shape[-1]))
    at = np.arange(queries.shape[1])
    hidden = at[None, :] > at[:, None]
    if window is not None:
        hidden |= at[None, :] <= at[:, None] - window
    scores = np.where(hidden, np.float32(-np.inf), scores)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights: Floats = scores / scores.sum(axis=-1, keepdims=True)
    return weights
