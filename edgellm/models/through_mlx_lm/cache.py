"""mlx-lm's caches of one sequence, all layers together, as the rest of edgellm sees a cache."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from edgellm.kv_cache.cache import Cache
from edgellm.models.through_mlx_lm import library

STEP = 256
"""Tokens; mlx-lm's caches grow by as many."""


class MLXLMCache:
    """The caches of one sequence, in all layers.

    Args:
        model: mlx-lm's, which makes them.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._entries = library.make_caches(model)
        self.offset: int = 0

    def logits(self, tokens: mx.array) -> mx.array:
        """Send the next tokens (1, L) through the model; return their logits (1, L, V)."""
        with library.renamed_errors("cannot compute this"):
            logits: mx.array = self._model(tokens, cache=self._entries)
        self.offset += tokens.shape[1]
        return logits

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false where mlx-lm's caches cannot.

        Those are states that sum up all tokens, as Mamba's, and windows that have moved on.
        """
        if offset >= self.offset:
            return True
        if offset == 0:
            self._entries = library.make_caches(self._model)
            self.offset = 0
            return True
        if not self.can_trim(offset):
            return False
        count = self.offset - offset
        trimmed = [entry.trim(count) for entry in self._entries]
        self.offset = offset
        if any(done != count for done in trimmed):
            # a chunked cache has less than it was asked for: nothing of it is of use
            self.trim(0)
            return False
        return True

    def can_trim(self, offset: int) -> bool:
        """Return whether mlx-lm's caches say that they can; a chunked one may have less."""
        if offset >= self.offset or offset == 0:
            return True
        return all(entry.is_trimmable() for entry in self._entries)

    def copy(self) -> MLXLMCache:
        """Return an independent cache of the same tokens."""
        twin = MLXLMCache(self._model)
        twin._entries = deepcopy(self._entries)
        twin.offset = self.offset
        return twin

    def copy_prefix(self, offset: int, tokens: int) -> MLXLMCache | None:
        """Return an independent cache of the first ``offset`` tokens; None where it cannot trim."""
        del tokens
        twin = self.copy()
        if not twin.trim(offset):
            return None
        return twin

    def resize(self, tokens: int) -> None:
        """Do nothing: mlx-lm's caches grow by themselves."""

    def finite_layers(self) -> list[bool]:
        """Return whether all numbers are finite, of each cache of mlx-lm; mostly one per layer."""
        by_layer = [library.arrays_in(entry.state) for entry in self._entries]
        return [
            all(bool(mx.all(mx.isfinite(array)).item()) for array in arrays) for arrays in by_layer
        ]

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays of all caches, to be evaluated."""
        return library.arrays_in([entry.state for entry in self._entries])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class CacheGrowth:
    """The bytes of one sequence's caches by its tokens.

    Attributes:
        fixed_bytes: whatever the text.
        windows: of each layer's cache, the bytes of a token, and the tokens that it holds at the
            most; None: all.
    """

    fixed_bytes: int
    windows: tuple[tuple[int, int | None], ...]

    def nbytes(self, tokens: int, prefill_chunk: int) -> int:
        """Return the bytes with this many tokens; a window also holds a chunk of the prompt."""
        tokens = -(-tokens // STEP) * STEP
        total = self.fixed_bytes
        for token_bytes, window in self.windows:
            held = tokens
            if window is not None:
                held = min(tokens, window + prefill_chunk)
            total += token_bytes * held
        return total


@dataclass(frozen=True, slots=True)
class MLXLMCaches:
    """Makes caches of mlx-lm's, which grow by themselves: ``runtime.caches.CacheMaker``.

    Attributes:
        model: mlx-lm's.
        growth: how a sequence's caches grow.
        prefill_chunk: prompt tokens that go through at once.
    """

    model: Any
    growth: CacheGrowth
    prefill_chunk: int

    def make(self, *, capacity: int, reserve: int, context: int | None = None) -> list[Cache]:
        """Return the one cache of a sequence."""
        del capacity, reserve, context
        return [MLXLMCache(self.model)]

    def nbytes(self, *, capacity: int, context: int | None = None) -> int:
        """Return the bytes of what ``make`` makes, once it is full."""
        del context
        return self.growth.nbytes(capacity, self.prefill_chunk)


def measure_growth(model: Any) -> tuple[int, CacheGrowth]:
    """Return a model's vocabulary, and how its caches grow.

    Two prompts go through, of which nothing is computed: shapes tell.
    """
    few, vocab_size = _entries_after(model, 2)
    more, _ = _entries_after(model, 2 + STEP)
    windows = []
    fixed_bytes = 0
    for entry, larger in zip(few, more, strict=True):
        before, after = _nbytes(entry), _nbytes(larger)
        token_bytes = (after - before) // STEP
        windows.append((token_bytes, getattr(entry, "max_size", None)))
        # the rest of a first step is a state that does not grow, alone or beside keys and values
        fixed_bytes += max(0, before - STEP * token_bytes)
    return vocab_size, CacheGrowth(fixed_bytes, tuple(windows))


def _entries_after(model: Any, tokens: int) -> tuple[Sequence[Any], int]:
    """Return the caches after a prompt, unevaluated, and the number of logits of a token."""
    entries = library.make_caches(model)
    logits = model(mx.zeros((1, tokens), mx.int32), cache=entries)
    return entries, int(logits.shape[-1])


def _nbytes(entry: Any) -> int:
    return sum(array.nbytes for array in library.arrays_in(entry.state))
