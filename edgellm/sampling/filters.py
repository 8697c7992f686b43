"""Filters: penalties, top-k, top-p and min-p, in the order of transformers.

Each of the last three stands here in two forms, side by side. ``mask_*`` works on MLX arrays and
stays lazy, so that a GPU need not wait. ``select_*`` works on NumPy arrays of the tokens that are
left, for a CPU: there MLX takes 35 ms to sort a vocabulary of 128,000; looking only at what can be
drawn takes 1 ms where few tokens are likely. ``tests/sampling/test_filters.py`` checks that both
keep the same tokens.
"""

# B sequences, V vocabulary, N tokens that are left

from __future__ import annotations

from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.settings import Sampling

Array = TypeVar("Array", mx.array, npt.NDArray[np.float32])
Tokens = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


def penalize_repeated(logits: Array, seen: Any, penalty: float) -> Array:
    """Return logits (..., V) with those of ``seen`` tokens (..., V) made less likely.

    The rule is that of CTRL (Keskar et al. 2019, arXiv:1909.05858): a positive logit is divided by
    ``penalty``, a negative one multiplied by it. Without ``seen`` the logits stay as they are.
    """
    if seen is None:
        return logits
    where: Any = np.where
    if isinstance(logits, mx.array):
        where = mx.where
    penalized: Array = where(seen, where(logits > 0, logits / penalty, logits * penalty), logits)
    return penalized


def penalize_counted(logits: Array, counts: Any, settings: Sampling) -> Array:
    """Return logits (..., V) less the frequency and presence penalties of an answer's tokens.

    From the logit of a token that the answer has c times it takes c times the frequency penalty,
    and once the presence penalty. Without ``counts`` (..., V) the logits stay as they are.
    """
    if counts is None:
        return logits
    penalty = counts * settings.frequency_penalty + (counts > 0) * settings.presence_penalty
    penalized: Array = logits - penalty
    return penalized


def filter_logits(logits: mx.array, settings: Sampling) -> mx.array:
    """Return logits (B, V) with those of tokens that are filtered out at minus infinity.

    The likeliest token always stays.
    """
    logits = mask_top_k(logits, settings.top_k)
    logits = mask_top_p(logits, settings.top_p)
    return mask_min_p(logits, settings.min_p)


def select_candidates(
    logits: npt.NDArray[np.float32], settings: Sampling
) -> tuple[Tokens, Weights]:
    """Return the tokens and weights (N,) that ``filter_logits`` keeps of logits (V,).

    Weights are in proportion to probabilities; that of the likeliest token is 1.
    """
    tokens = select_top_k(logits, settings.top_k)
    # after top-k, so that only what is left has to be exponentiated
    weights = np.exp(logits[tokens] - logits.max()).astype(np.float64)
    tokens, weights = select_top_p(tokens, weights, settings.top_p)
    return select_min_p(tokens, weights, settings.min_p)


def mask_top_k(logits: mx.array, top_k: int) -> mx.array:
    """Keep the ``top_k`` largest logits, and those that equal the last of them; 0 keeps all."""
    vocabulary = logits.shape[-1]
    if not 0 < top_k < vocabulary:
        return logits
    threshold = mx.sort(logits, axis=-1)[:, vocabulary - top_k, None]  # (B, 1)
    return _drop(logits, logits < threshold)


def select_top_k(logits: npt.NDArray[np.float32], top_k: int) -> Tokens:
    """Return the tokens that ``mask_top_k`` keeps of logits (V,)."""
    vocabulary = len(logits)
    if not 0 < top_k < vocabulary:
        return np.arange(vocabulary)
    place = vocabulary - top_k
    return np.flatnonzero(logits >= np.partition(logits, place)[place])


def mask_top_p(logits: mx.array, top_p: float) -> mx.array:
    """Keep the fewest tokens whose probabilities reach ``top_p``; 1 keeps all.

    This is nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751).
    """
    if top_p >= 1:
        return logits
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1, precise=True)
    # of the likelier tokens alone: the token that crosses top_p still belongs to the nucleus
    before = mx.cumsum(probabilities, axis=-1, inclusive=False)
    nothing = mx.zeros(logits.shape, mx.bool_)
    return _drop(logits, mx.put_along_axis(nothing, order, before >= top_p, axis=-1))


def select_top_p(tokens: Tokens, weights: Weights, top_p: float) -> tuple[Tokens, Weights]:
    """Return the tokens and weights (N,) that ``mask_top_p`` keeps, likeliest first."""
    if top_p >= 1:
        return tokens, weights
    total = weights.sum()
    nucleus = top_p * total
    # All tokens lighter than this floor weigh together at most half of what top-p leaves out
    # (total - nucleus), so the nucleus never reaches them, and they need no sorting.
    floor = 0.5 * (total - nucleus) / len(weights)
    order = np.flatnonzero(weights >= floor)
    order = order[np.argsort(-weights[order], kind="stable")]
    before = np.cumsum(weights[order]) - weights[order]
    order = order[: max(1, int(np.searchsorted(before, nucleus)))]
    return tokens[order], weights[order]


def mask_min_p(logits: mx.array, min_p: float) -> mx.array:
    """Keep tokens at least ``min_p`` times as likely as the likeliest; 0 keeps all.

    From Nguyen et al. 2024 (arXiv:2407.01082).
    """
    if min_p <= 0:
        return logits
    # p >= min_p * p_max, in logarithms: the sum of the softmax stands on both sides
    threshold = mx.max(logits, axis=-1, keepdims=True) + float(np.log(min_p))
    return _drop(logits, logits < threshold)


def select_min_p(tokens: Tokens, weights: Weights, min_p: float) -> tuple[Tokens, Weights]:
    """Return the tokens and weights (N,) that ``mask_min_p`` keeps."""
    if min_p <= 0:
        return tokens, weights
    likely = weights >= min_p * weights.max()
    return tokens[likely], weights[likely]


def _drop(logits: mx.array, dropped: mx.array) -> mx.array:
    """Return logits (B, V) with those of ``dropped`` tokens (B, V) at minus infinity."""
    return mx.where(dropped, mx.array(-float("inf"), dtype=logits.dtype), logits)
