"""Log-probabilities of tokens that are known: a prompt's own."""

# L tokens of a part, E hidden, R rows that go through the head at once, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from edgellm.sampling.finite import require_finite
from edgellm.sampling.logprobs import TokenLogprob, logprobs_of

HEAD_ROWS = 64
"""Rows whose logits are there at once: 33 MB with a vocabulary of 128,000."""


class TokenScorer:
    """Scores tokens by the hidden states of those before them, which come a part at a time.

    Args:
        head: makes logits (R, V) of hidden states (R, E).
        tokens: the sequence; of its first token there is nothing to say.
        top: how many of the likeliest tokens are told as well.

    Attributes:
        logprobs: of the tokens from the second on, as far as their states have come.
        is_finite: whether all logits before them are; else these say nothing.
    """

    def __init__(
        self,
        head: Callable[[mx.array], mx.array],
        tokens: Sequence[int],
        *,
        top: int = 0,
    ) -> None:
        self._head = head
        self._tokens = np.array(tokens, dtype=np.int64)
        self._top = top
        self._place = 0
        self.logprobs: list[TokenLogprob] = []
        self.is_finite: bool = True

    def add(self, hidden: mx.array) -> None:
        """Take the hidden states (L, E) of the next L tokens."""
        # the last token's state says what follows all of them
        end = min(self._place + len(hidden), len(self._tokens) - 1)
        for start in range(self._place, end, HEAD_ROWS):
            stop = min(start + HEAD_ROWS, end)
            logits = self._head(hidden[start - self._place : stop - self._place])
            logits = logits.astype(mx.float32)
            largest = np.array(logits, copy=False).max(axis=-1)
            self.is_finite = self.is_finite and bool(np.isfinite(largest).all())
            tokens = mx.array(self._tokens[start + 1 : stop + 1])
            self.logprobs += logprobs_of(logits, tokens, self._top, lazy=False).read()
        self._place += len(hidden)

    def require_finite(self) -> None:
        """Raise NotFiniteError where the logits before a token were not finite."""
        if not self.is_finite:
            require_finite(np.nan)
