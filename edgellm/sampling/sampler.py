"""From logits to the next token: one order of steps.

On a GPU they stay lazy, so that nothing waits for them. On a CPU NumPy draws: sorting a vocabulary
of 128,000 takes MLX 35 ms there, and looking only at what can be drawn 1 ms.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.settings import Sampling

GREEDY = 1e-3
"""Temperatures below it take the likeliest token: the quotients would leave the range of float32."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The tokens that can be drawn, and the probability of each."""

    tokens: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]

    def of(self, token: int) -> float:
        """The probability of a token."""
        return float(self.shares[self.tokens == token].sum())

    def drawn(self, uniform: float) -> int:
        """The token in whose share the number ``uniform``, of [0, 1), falls."""
        return _drawn(self.tokens, self.shares, uniform)

    def beyond(self, other: Distribution) -> Distribution:
        """What is left of these where the other ones are taken away: nothing below zero, and one in all.

        Where nothing is left, which only rounding can do, they stay as they are.
        """
        order = np.argsort(other.tokens)
        places = np.minimum(np.searchsorted(other.tokens[order], self.tokens), len(order) - 1)
        found = order[places]
        taken = np.where(other.tokens[found] == self.tokens, other.shares[found], 0.0)
        left = np.maximum(self.shares - taken, 0.0)
        return Distribution(self.tokens, left / left.sum()) if left.sum() > 0 else self


class Sampler:
    """Draws tokens as ``Sampling`` says; holds which tokens the sequence has so far, and how many were drawn.

    Args:
        sampling: how.
        prompt: the tokens so far.
        vocab_size: logits of a row.
        lazy: whether tokens are drawn on the device, unevaluated; equal seeds then draw other
            tokens than without.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], vocab_size: int, *, lazy: bool = True
    ) -> None:
        self.sampling, self._lazy = sampling, lazy
        seed = (
            sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(8), "little")
        )
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._random = np.random.default_rng(seed)
        self._drawn = 0
        self.seen: mx.array | None = None
        """Which tokens (1, V) the repetition penalty looks at."""
        if sampling.repetition_penalty != 1.0:
            seen = np.zeros((1, vocab_size), dtype=np.bool_)
            seen[0, np.asarray(prompt, dtype=np.int64)] = True
            self.seen = mx.array(seen)

    def __call__(self, logits: mx.array) -> mx.array:
        """Return the next token (1,) for logits (1, V)."""
        settings = self.sampling
        logits = logits.astype(mx.float32)
        if self.seen is not None:
            logits = penalized(logits, self.seen, settings.repetition_penalty)
        if settings.temperature < GREEDY:
            token = mx.argmax(logits, axis=-1)
        elif not self._lazy:
            row: npt.NDArray[np.float32] = np.array(logits)[0]
            token = mx.array(
                [
                    _drawn(
                        *likely_tokens(row / np.float32(settings.temperature), settings),
                        self._random.random(),
                    )
                ]
            )
        else:
            kept = keep_likely(logits / settings.temperature, settings)
            token = mx.random.categorical(
                kept, key=mx.array([self._seed, self._drawn], dtype=mx.uint32)
            )
        self._note(token)
        return token

    def judge(self, logits: mx.array, guess: int, odds: Distribution | None) -> int:
        """Return the next token for logits (1, V), distributed as if there were no guess; often it is the guess.

        Args:
            logits: of one row.
            guess: the token that is expected.
            odds: what the guess was drawn from. Then it is taken or refused by rejection sampling
                (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318). None
                where it was not drawn: the token is then drawn as always, and is the guess as often
                as rejection sampling would take it.
        """
        if odds is None or self.sampling.temperature < GREEDY:
            drawn: Any = self(logits).tolist()
            return int(drawn[0])
        row: npt.NDArray[np.float32] = np.array(logits.astype(mx.float32))[0]
        seen = None if self.seen is None else np.array(self.seen)[0]
        wanted = odds_of(row, self.sampling, seen)
        token = guess
        if self._random.random() * odds.of(guess) >= wanted.of(guess):
            token = wanted.beyond(odds).drawn(self._random.random())
        self._note(token)
        return token

    @property
    def plain_greedy(self) -> bool:
        """Whether the next token is the likeliest one, whatever came before."""
        return self.sampling.temperature < GREEDY and self.seen is None

    def _note(self, token: mx.array | int) -> None:
        self._drawn += 1
        if self.seen is not None:
            self.seen[0, token] = True


def keep_likely(logits: mx.array, settings: Sampling) -> mx.array:
    """Return logits (1, V) with those outside top-k, top-p and min-p at minus infinity; the likeliest always stays.

    Top-p is nucleus sampling (Holtzman et al. 2020), min-p from Nguyen et al. 2024
    (arXiv:2407.01082).
    """
    vocabulary = logits.shape[-1]
    nothing = mx.array(-float("inf"), dtype=logits.dtype)
    if 0 < settings.top_k < vocabulary:
        threshold = mx.sort(logits, axis=-1)[:, vocabulary - settings.top_k, None]
        logits = mx.where(logits < threshold, nothing, logits)
    if settings.top_p < 1:
        order = mx.argsort(-logits, axis=-1)
        probabilities = mx.softmax(
            mx.take_along_axis(logits, order, axis=-1), axis=-1, precise=True
        )
        before = mx.cumsum(probabilities, axis=-1, inclusive=False)
        dropped = mx.put_along_axis(
            mx.zeros(logits.shape, mx.bool_), order, before >= settings.top_p, axis=-1
        )
        logits = mx.where(dropped, nothing, logits)
    if settings.min_p > 0:
        best = mx.max(logits, axis=-1, keepdims=True)
        logits = mx.where(logits < best + float(np.log(settings.min_p)), nothing, logits)
    return logits


def likely_tokens(
    logits: npt.NDArray[np.float32], settings: Sampling
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the tokens that ``keep_likely`` keeps of logits (V,), and weights in proportion to their probabilities."""
    vocabulary = len(logits)
    tokens = np.arange(vocabulary)
    if 0 < settings.top_k < vocabulary:
        tokens = np.flatnonzero(
            logits >= np.partition(logits, vocabulary - settings.top_k)[vocabulary - settings.top_k]
        )
    weights = np.exp(logits[tokens] - logits.max()).astype(np.float64)
    if settings.top_p < 1:
        wanted = settings.top_p * weights.sum()
        # All tokens below this together cannot make up what top-p leaves out, so they need no
        # sorting.
        floor = 0.5 * (weights.sum() - wanted) / len(weights)
        order = np.flatnonzero(weights >= floor)
        order = order[np.argsort(-weights[order], kind="stable")]
        before = np.cumsum(weights[order]) - weights[order]
        order = order[: max(1, int(np.searchsorted(before, wanted)))]
        tokens, weights = tokens[order], weights[order]
    if settings.min_p > 0:
        kept = weights >= settings.min_p * weights.max()
        tokens, weights = tokens[kept], weights[kept]
    return tokens, weights


def odds_of(
    row: npt.NDArray[np.float32], settings: Sampling, seen: npt.NDArray[np.bool_] | None
) -> Distribution:
    """Return what a token is drawn from after logits (V,), of which those of tokens ``seen`` (V,) are penalized."""
    row = penalized_row(row, settings, seen)
    tokens, weights = likely_tokens(row / np.float32(settings.temperature), settings)
    return Distribution(tokens, weights / weights.sum())


def penalized_row(
    row: npt.NDArray[np.float32], settings: Sampling, seen: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float32]:
    """``penalized`` for one row (V,) in NumPy; the row itself where nothing is penalized."""
    if seen is None:
        return row
    penalty = np.float32(settings.repetition_penalty)
    return np.where(seen, np.where(row > 0, row / penalty, row * penalty), row)


def _drawn(tokens: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], uniform: float) -> int:
    """The token in whose share of the weights the number ``uniform``, of [0, 1), falls."""
    ends = np.cumsum(weights)
    return int(
        tokens[min(int(np.searchsorted(ends, uniform * ends[-1], side="right")), len(tokens) - 1)]
    )


def penalized(logits: mx.array, seen: mx.array, penalty: float) -> mx.array:
    """Return logits (B, V) with those of tokens ``seen`` (B, V) made less likely (Keskar et al. 2019, arXiv:1909.05858)."""
    return mx.where(seen, mx.where(logits > 0, logits / penalty, logits * penalty), logits)


def log_probabilities(logits: mx.array) -> mx.array:
    """Return the natural log-probabilities (B, V) in float32 under logits (B, V), before any sampling step."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def log_probability(logits: mx.array, token: mx.array) -> mx.array:
    """Return the natural log-probability (1,) of a token (1,) under logits (1, V), before any sampling step."""
    logits = logits.astype(mx.float32)
    return mx.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - mx.logsumexp(logits, axis=-1)
