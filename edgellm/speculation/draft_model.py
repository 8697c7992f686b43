"""A small model that guesses what a large one says next. It stays in memory, with a KV cache of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.llama import Model
from edgellm.sampling.sampler import GREEDY, odds_of, penalized_row
from edgellm.settings import Sampling
from edgellm.speculation.proposal import DraftToken

TRUSTS = 10
"""Steps in which a draft's own probability says how sure a guess is."""

BEHIND = 32
"""Tokens; a draft that has more to catch up does so apart, and the time is not that of a guess."""


class DraftModel:
    """Guesses with a model.

    Its caches go along with the sequence: what a guess added and the sequence did not take is given
    back.

    Args:
        model: the draft; all of it in memory.
        caches: its caches, with room for ``context`` tokens.
        context: tokens up to which it guesses.
        chunk: tokens that go through it at once.
        vocab_size: tokens that the model has which it guesses for.
    """

    costs = True
    chances = tuple((step + 0.5) / TRUSTS for step in range(TRUSTS))

    def __init__(
        self, model: Model, caches: Sequence[Cache], *, context: int, chunk: int, vocab_size: int
    ) -> None:
        self._model, self._caches = model, caches
        self._context, self._chunk = context, chunk
        self._vocabulary = min(vocab_size, model.config.vocab_size)
        self._tokens: list[int] = []
        self._held: list[int] = []
        self._agreed = 0
        self._sampling = Sampling()
        self._random: np.random.Generator | None = None
        self._seen: npt.NDArray[np.bool_] | None = None

    def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Look at another sequence.

        Where tokens are drawn, so are guesses. With a seed the likeliest token is guessed instead:
        the text is then the one that the seed draws without guesses.
        """
        self._tokens, self._sampling = list(tokens), sampling
        self._agreed = 0
        self._random = (
            np.random.default_rng()
            if sampling.temperature >= GREEDY and sampling.seed is None
            else None
        )
        self._seen = None
        if sampling.repetition_penalty != 1.0:
            self._seen = np.zeros(self._vocabulary, np.bool_)
            self._seen[[token for token in tokens if token < self._vocabulary]] = True

    def add(self, token: int) -> None:
        """Take the next token of the sequence."""
        self._tokens.append(token)
        if self._seen is not None and token < self._vocabulary:
            self._seen[token] = True

    def prepare(self) -> None:
        """Read what it has not read of a sequence, if that is much."""
        end = len(self._tokens) - 1
        self._go_back()
        if len(self._tokens) <= self._context and end - len(self._held) > BEHIND:
            for begin in range(len(self._held), end, self._chunk):
                self._read(self._tokens[begin : min(end, begin + self._chunk)])
                mx.eval(*stored(self._caches))

    def guesses(self) -> Iterator[DraftToken]:
        """Yield the next tokens, a pass through the draft each, until its context is full."""
        self._go_back()
        new = self._tokens[len(self._held) :]
        seen = None if self._seen is None else self._seen.copy()
        while (
            len(self._held) + len(new) <= self._context and max(new) < self._model.config.vocab_size
        ):
            guess = self._guess(self._read(new), seen)
            if seen is not None:
                seen[guess.token] = True
            yield guess
            new = [guess.token]

    def close(self) -> None:
        """Let the weights go."""
        self._model.layers.close()
        self._caches = ()

    def _go_back(self) -> None:
        """Forget what it has read beyond what is the sequence's; its last token is read anew, for the odds after it."""
        end = min(len(self._held), len(self._tokens) - 1)
        while self._agreed < end and self._held[self._agreed] == self._tokens[self._agreed]:
            self._agreed += 1
        common = min(self._agreed, end)
        if not all(cache.trim(common) for cache in self._caches):
            common = 0
            for cache in self._caches:
                cache.trim(0)
        del self._held[common:]

    def _read(self, tokens: Sequence[int]) -> mx.array:
        """Send tokens through the draft; the logits (1, V) after the last."""
        hidden = self._model.hidden([mx.array([tokens])], [self._caches])[0]
        self._held += tokens
        return self._model.logits(hidden[:, -1])

    def _guess(self, logits: mx.array, seen: npt.NDArray[np.bool_] | None) -> DraftToken:
        row: npt.NDArray[np.float32] = np.array(logits.astype(mx.float32))[0, : self._vocabulary]
        if self._random is not None:
            odds = odds_of(row, self._sampling, seen)
            token = odds.drawn(self._random.random())
            return DraftToken(token, _trust(odds.of(token)), odds)
        row = penalized_row(row, self._sampling, seen)
        token = int(row.argmax())
        return DraftToken(token, _trust(1.0 / float(np.exp(row - row[token]).sum())))


def _trust(probability: float) -> int:
    return min(TRUSTS - 1, int(probability * TRUSTS))
