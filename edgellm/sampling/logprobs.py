"""Log-probabilities of tokens by the model's own logits: no penalty, filter or temperature."""

# N positions, K likeliest tokens of each, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt


class TokenLogprob(NamedTuple):
    """The log-probability of a token, and the likeliest tokens in its place with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities at N positions, in float32; on a GPU they may still have to be computed.

    Attributes:
        own: of a token at each position (N,).
        top_tokens: the likeliest tokens (N, K), in any order; None where none are asked for.
        top: theirs (N, K).
    """

    own: Any
    top_tokens: Any = None
    top: Any = None

    @property
    def pending(self) -> list[mx.array]:
        """The arrays that have to be evaluated before they are read."""
        arrays = (self.own, self.top_tokens, self.top)
        return [array for array in arrays if isinstance(array, mx.array)]

    def read(self) -> list[TokenLogprob]:
        """Return them, a position each; waits for them. Of equal ones the lower id comes first."""
        own: list[float] = np.array(self.own).tolist()
        if self.top is None:
            return [TokenLogprob(logprob) for logprob in own]
        tokens: list[list[int]] = np.array(self.top_tokens).tolist()
        values: list[list[float]] = np.array(self.top).tolist()
        read = []
        for logprob, row_tokens, row_values in zip(own, tokens, values, strict=True):
            pairs = zip(row_tokens, row_values, strict=True)
            top = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
            read.append(TokenLogprob(logprob, tuple(top)))
        return read


def logprobs_of(logits: mx.array, tokens: mx.array, top: int = 0, *, lazy: bool) -> Logprobs:
    """Return the natural log-probabilities of tokens (N,) under logits (N, V).

    Args:
        logits: the model's.
        tokens: one a position.
        top: how many of the likeliest tokens are told as well.
        lazy: leave everything to the device, unevaluated. Else NumPy computes at once: on a CPU it
            takes 0.06 ms for a vocabulary of 32,000, and MLX 1.1 ms.
    """
    logits = logits.astype(mx.float32)
    top = min(top, logits.shape[-1])
    if lazy:
        return _lazy_logprobs(logits, tokens, top)
    rows: npt.NDArray[np.float32] = np.array(logits, copy=False)
    largest = rows.max(axis=-1)
    with np.errstate(invalid="ignore"):  # who draws a token refuses what is not finite
        totals = largest + np.log(np.exp(rows - largest[:, None]).sum(axis=-1))
    own = rows[np.arange(len(rows)), np.array(tokens)] - totals
    if not top:
        return Logprobs(own)
    top_tokens = np.argpartition(rows, -top, axis=-1)[:, -top:]
    return Logprobs(own, top_tokens, np.take_along_axis(rows, top_tokens, 1) - totals[:, None])


def log_probabilities(logits: mx.array) -> mx.array:
    """Return the natural log-probabilities (N, V) in float32 under logits (N, V)."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _lazy_logprobs(logits: mx.array, tokens: mx.array, top: int) -> Logprobs:
    totals = mx.logsumexp(logits, axis=-1)
    # not taken from log_probabilities: no array (N, V) is written for N numbers
    own = mx.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0] - totals
    if not top:
        return Logprobs(own)
    top_tokens = mx.argpartition(-logits, kth=top - 1, axis=-1)[:, :top]
    return Logprobs(own, top_tokens, mx.take_along_axis(logits, top_tokens, -1) - totals[:, None])
