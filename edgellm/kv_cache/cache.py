"""The KV cache: keys and values of the tokens so far, one cache per layer."""

# L new tokens, S tokens that are looked at, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import count
from typing import Protocol, cast

import mlx.core as mx

from edgellm.kv_cache.kv_format import KeysOrValues, KVFormat

Mask = mx.array | str | None
"""Which keys a query sees: all (None), ``"causal"``, or true at (query, key), of shape (L, S)."""

STEP = 256
"""Tokens; storage grows in multiples of it, by doubling."""

ROLLBACK = 32
"""Tokens that every cache can forget again: at most this many draft tokens are rejected at once."""

SLACK = 2 * ROLLBACK
"""Tokens that a window's storage has besides the window.

The window moves along the storage, and back to its beginning once in ``SLACK - ROLLBACK + 1`` = 33
tokens: a copy of a 33rd of the window a token, where attention reads all of it.
"""


_storages = count()


class LayerCache(Protocol):
    """A sequence's keys and values of one layer, as a call with new tokens is told of them."""

    @property
    def offset(self) -> int:
        """The position of the first new token."""
        ...

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays of keys and values, to be evaluated."""
        ...


class Cache(LayerCache, Protocol):
    """A sequence's keys and values of one layer, or whatever a whole model keeps of its tokens."""

    offset: int
    """Tokens so far: the position of the next one."""

    def trim(self, offset: int) -> bool:
        """Forget all tokens from position ``offset`` on.

        False, with nothing forgotten, where tokens that the one at ``offset`` looks at are gone;
        never for up to ``ROLLBACK`` tokens back.
        """
        ...

    def can_trim(self, offset: int) -> bool:
        """Return whether ``trim`` would forget the tokens from position ``offset`` on."""
        ...

    def copy(self) -> Cache:
        """Return an independent cache of the same tokens."""
        ...

    def copy_prefix(self, offset: int, tokens: int) -> Cache | None:
        """Return an independent cache of the first ``offset`` tokens; None where it cannot trim.

        Args:
            offset: tokens that it holds, no more than this one.
            tokens: tokens that storage is made for.
        """
        ...

    def resize(self, tokens: int) -> None:
        """Make storage for exactly ``tokens``, or for as many as are held where those are more."""
        ...

    def finite_layers(self) -> list[bool]:
        """Return for each layer that is held whether all its keys and values are finite."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


class TreeCache(Cache, Protocol):
    """A cache of layers that take trees of tokens."""

    @property
    def room(self) -> int:
        """New tokens that there is storage for at once."""
        ...

    def move(self, source: int, target: int) -> None:
        """Copy the token at one position to another."""
        ...


class KVCache:
    """A cache of every token up to ``capacity`` of them, or of those in a window.

    Tokens lie in their order, the one at position ``base`` first. Storage is written in place, and
    doubles when it is full: over a text each token is copied once at most. Where a window has
    moved to the end of the storage, what is still in it moves back to the beginning.

    Args:
        kv_format: how keys and values are stored.
        capacity: maximum number of tokens, for a cache without a window.
        window: tokens that the next one looks at, itself included; None: all.
        reserve: tokens that storage is made for at once.
    """

    def __init__(
        self, kv_format: KVFormat, *, capacity: int, window: int | None = None, reserve: int = STEP
    ) -> None:
        self.kv_format = kv_format
        self.window = window
        self.capacity: int = storage_tokens(capacity, window)
        self.offset: int = 0
        self.base: int = 0
        self.arrays: list[mx.array] = kv_format.empty(min(self.capacity, reserve))
        # another number whenever tokens lie elsewhere: who knows addresses asks for them again
        self.storage: int = next(_storages)

    @property
    def allocated(self) -> int:
        """Tokens that storage is made for now."""
        return int(self.arrays[0].shape[2])

    @property
    def window_start(self) -> int:
        """The position of the oldest token that the next one looks at."""
        return self._window_start(self.offset)

    def reserve(self, tokens: int) -> bool:
        """Make room for ``tokens`` more; false where a window's storage is too small for so many.

        Tokens of a window that no later one looks at, not even after a rollback, may go.
        """
        end = self.offset + tokens
        if end - self.base <= self.allocated:
            return True
        if self.window is not None and end - self.base > self.capacity:
            start = max(self.base, self.window_start - ROLLBACK)
            if end - start > self.capacity:
                return False
            self._allocate(self.capacity)
            self._move_to_front(start)
            return True
        assert end - self.base <= self.capacity, "the loop stops at the capacity"
        doubled = max(_round_up(end - self.base), 2 * self.allocated)
        self._allocate(min(self.capacity, doubled))
        return True

    def update(self, keys: mx.array, values: mx.array) -> tuple[KeysOrValues, KeysOrValues, Mask]:
        """Store new keys and values (1, G, L, D); return those seen (1, G, S, D), and a mask."""
        length = keys.shape[2]
        start = self.window_start
        mask = self._mask(length)
        new = self.kv_format.pack(keys, values)
        if self.reserve(length):
            begin = self.offset - self.base
            for array, part in zip(self.arrays, new, strict=True):
                array[:, :, begin : begin + length] = part
            self.offset += length
            arrays = self.part(start, self.offset)
        else:
            # More tokens at once than a window's storage holds: seen whole, kept in part.
            old = self.part(start, self.offset)
            arrays = [mx.concatenate([*pair], axis=2) for pair in zip(old, new, strict=True)]
            self.replace(arrays, start)
        self.storage = next(_storages)
        return *self.kv_format.unpack(arrays), mask

    def part(self, begin: int, end: int) -> list[mx.array]:
        """Return the arrays of the tokens from position ``begin`` to before ``end``, all held."""
        return [array[:, :, begin - self.base : end - self.base] for array in self.arrays]

    def replace(self, arrays: list[mx.array], begin: int) -> None:
        """Hold these tokens and no others; of a window, only the last that it needs.

        Args:
            arrays: of the KV format, (1, ..., S, ...) with tokens along axis 2.
            begin: the position of the first token.
        """
        end = begin + int(arrays[0].shape[2])
        start = begin
        if self.window is not None:
            start = max(begin, self._window_start(end) - ROLLBACK)
        self.offset = self.base = start
        assert self.reserve(end - start), "a window and its rollback fit its storage"
        for array, part in zip(self.arrays, arrays, strict=True):
            array[:, :, : end - start] = part[:, :, start - begin :]
        self.offset = end
        self.storage = next(_storages)

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false where tokens to look at again are gone."""
        if offset >= self.offset:
            return True
        if not self.can_trim(offset):
            return False
        if offset == 0 and self.base != 0:
            self.base = 0
            self.storage = next(_storages)
        self.offset = offset
        return True

    def can_trim(self, offset: int) -> bool:
        """Return whether all that the token at ``offset`` looks at is held."""
        return offset >= self.offset or offset == 0 or self.base <= self._window_start(offset)

    @property
    def room(self) -> int:
        """New tokens that there is storage for at once."""
        room = self.allocated - (self.offset - self.base)
        if self.window is not None and self.allocated == self.capacity:
            room = max(room, self.capacity - self.window - ROLLBACK)
        return room

    def move(self, source: int, target: int) -> None:
        """Copy the token at one position to another, on a CPU, in storage that was written to."""
        import numpy as np  # not by those who only ask what a model is

        for array in self.arrays:
            memory = np.array(array, copy=False)
            memory[:, :, target - self.base] = memory[:, :, source - self.base]

    def copy(self) -> KVCache:
        """Return an independent cache of the same tokens."""
        twin = copy(self)
        # A product, since MLX's other copies share memory until one is written to, and CPU kernels
        # write by address.
        twin.arrays = [array * 1 for array in self.arrays]
        twin.storage = next(_storages)
        return twin

    def copy_prefix(self, offset: int, tokens: int) -> KVCache | None:
        """Return an independent cache of the first ``offset`` tokens; None where it cannot trim."""
        twin = copy(self)
        if not twin.trim(offset):
            return None
        twin._allocate(twin._storage_for(tokens))
        return twin

    def resize(self, tokens: int) -> None:
        """Make storage for exactly ``tokens``, or for as many as are held where those are more."""
        storage = self._storage_for(tokens)
        if storage != self.allocated:
            self._allocate(storage)

    def keep_all(self, tokens: int) -> None:
        """Make storage for exactly ``tokens``, none of which is forgotten, not even by a window."""
        self.capacity = tokens
        self.resize(tokens)

    def finite_layers(self) -> list[bool]:
        """Return whether all keys and values are finite numbers; of quantized ones, the scales."""
        parts = self.part(self.base, self.offset)
        return [all(bool(mx.all(mx.isfinite(part)).item()) for part in parts)]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in self.arrays)

    def _window_start(self, offset: int) -> int:
        """The oldest position that the token at ``offset`` looks at."""
        if self.window is None:
            return 0
        return max(0, offset + 1 - self.window)

    def _mask(self, length: int) -> Mask:
        if length == 1:  # all that is returned is in its window
            return None
        if self.window is None or self.offset + length <= self.window:
            return "causal"
        # Query i is at position ``before + i`` of the S = before + L keys that are returned.
        before = self.offset - self.window_start
        queries = mx.arange(before, before + length)[:, None]  # (L, 1)
        distance = queries - mx.arange(before + length)[None]  # (L, S)
        return (distance >= 0) & (distance < self.window)

    def _storage_for(self, tokens: int) -> int:
        return max(self.offset - self.base, min(self.capacity, tokens))

    def _allocate(self, tokens: int) -> None:
        self.storage = next(_storages)
        used = self.offset - self.base
        held = [array[:, :, :used] for array in self.arrays]
        if tokens == used:  # an assignment of the whole would share memory, as in ``copy``
            self.arrays = [array * 1 for array in held]
            return
        self.arrays = self.kv_format.empty(tokens)
        for array, part in zip(self.arrays, held, strict=True):
            array[:, :, :used] = part

    def _move_to_front(self, start: int) -> None:
        """Drop what is before position ``start``, and let it be the first."""
        for array, rest in zip(self.arrays, self.part(start, self.offset), strict=True):
            array[:, :, : self.offset - start] = rest
        self.base = start
        self.storage = next(_storages)


def tree_caches(caches: Sequence[Cache]) -> Sequence[TreeCache]:
    """Return the caches of layers that take trees, which have no others.

    Nothing is asked of them: to ask 32 caches for all that the protocol has takes 0.7 ms.
    """
    return cast(Sequence[TreeCache], caches)


def stored(caches: Iterable[LayerCache]) -> list[mx.array]:
    """Return the arrays of some caches, to be evaluated."""
    return [array for cache in caches for array in cache.arrays]


def storage_tokens(context: int, window: int | None) -> int:
    """Return the tokens that a cache for ``context`` tokens holds at most."""
    if window is None:
        return context
    return min(context, window + SLACK)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
