"""Log-probabilities of tokens that are known: a prompt's own, or those of a scored text."""

# L tokens of a part, E hidden, R rows that go through the head at once, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.sampling.finite import require_finite
from edgellm.sampling.logprobs import TokenLogprob, logprobs_of

HEAD_ROWS = 64
"""Rows whose logits are there at once: 33 MB with a vocabulary of 128,000."""


class TokenScorer:
    """Scores tokens by the hidden states of those before them, which come a part at a time.

    Args:
        head: makes logits (R, V) of hidden states (R, E).
        tokens: the sequence; of its first token there is nothing to say.
        first: the place of the first token that is scored; at least 1.
        top: how many of the likeliest tokens are told as well.

    Attributes:
        logprobs: of the tokens from ``first`` on, as far as their states have come.
        is_greedy: whether each of those is the likeliest token in its place.
        is_finite: whether all logits before them are; else the others say nothing.
    """

    def __init__(
        self,
        head: Callable[[mx.array], mx.array],
        tokens: Sequence[int],
        *,
        first: int = 1,
        top: int = 0,
    ) -> None:
        self._head = head
        self._tokens = np.array(tokens, dtype=np.int64)
        self._first = first
        self._top = top
        self._place = 0
        self.logprobs: list[TokenLogprob] = []
        self.is_greedy: bool = True
        self.is_finite: bool = True

    def add(self, hidden: mx.array) -> None:
        """Take the hidden states (L, E) of the next L tokens."""
        begin = max(self._place, self._first - 1)
        # the last token's state says what follows all of them
        end = min(self._place + len(hidden), len(self._tokens) - 1)
        for start in range(begin, end, HEAD_ROWS):
            stop = min(start + HEAD_ROWS, end)
            logits = self._head(hidden[start - self._place : stop - self._place])
            self._score(logits, self._tokens[start + 1 : stop + 1])
        self._place += len(hidden)

    def add_logits(self, logits: mx.array) -> None:
        """Take the logits (1, V) after the next token, instead of its state."""
        self._score(logits, self._tokens[self._place + 1 : self._place + 2])
        self._place += 1

    def require_finite(self) -> None:
        """Raise NotFiniteError where the logits before a token were not finite."""
        if not self.is_finite:
            require_finite(np.nan)

    def _score(self, logits: mx.array, tokens: npt.NDArray[np.int64]) -> None:
        """Score R tokens by the logits (R, V) before them."""
        logits = logits.astype(mx.float32)
        rows: npt.NDArray[np.float32] = np.array(logits, copy=False)
        self.is_finite = self.is_finite and bool(np.isfinite(rows.max(axis=-1)).all())
        self.is_greedy = self.is_greedy and bool((rows.argmax(axis=-1) == tokens).all())
        self.logprobs += logprobs_of(logits, mx.array(tokens), self._top, lazy=False).read()
