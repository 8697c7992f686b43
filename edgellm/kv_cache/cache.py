"""Keys and values of the tokens so far, one cache a layer."""

# L new tokens, S tokens that are looked at, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Protocol

import mlx.core as mx

from edgellm.kv_cache.kv_format import KeysOrValues, KVFormat

Mask = mx.array | str | None
"""What attention may look at: everything, ``"causal"``, or true where a query (row) sees a key (column)."""

STEP = 256
"""Tokens; storage grows in multiples of it, by doubling."""

ROLLBACK = 32
"""Tokens that every cache can forget again, whatever it has done since: what a speculation may have gone too far."""

SLACK = 2 * ROLLBACK
"""Tokens that storage for a window has on top of it. The window moves along it, and back to its beginning once in 33 tokens:
a copy of a 33rd of the window a token, where attention reads all of it."""


class Cache(Protocol):
    """What a layer asks of its cache."""

    offset: int

    def update(self, keys: mx.array, values: mx.array) -> tuple[KeysOrValues, KeysOrValues, Mask]:
        """Store new keys and values (1, G, L, D); return all that are to be looked at (1, G, S, D), and the mask."""
        ...

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false where older ones that would be looked at again are gone.

        It never is for up to ``ROLLBACK`` tokens back.
        """
        ...

    def copy(self) -> Cache:
        """Return a cache of the same tokens that goes its own way."""
        ...

    @property
    def arrays(self) -> list[mx.array]:
        """What holds keys and values, to be evaluated."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


class KVCache:
    """A cache of every token up to ``capacity`` of them, or of those in a window, in a ``KVFormat``.

    Tokens lie in their order, the one at position ``base`` first. Storage is written in place, and
    doubles when it is full: over a text each token is copied once at the most. Where a window has
    moved to the end of the storage, what is still in it moves back to the beginning.
    """

    def __init__(
        self, kv_format: KVFormat, *, capacity: int, window: int | None = None, reserve: int = STEP
    ) -> None:
        self.kv_format = kv_format
        self.window = window
        self.capacity = storage_tokens(capacity, window)
        self.offset = self.base = 0
        self.arrays = kv_format.empty(min(self.capacity, _round_up(reserve)))

    @property
    def room(self) -> int:
        """Tokens that storage is made for now."""
        return int(self.arrays[0].shape[2])

    @property
    def first(self) -> int:
        """The oldest token that the next one looks at."""
        return 0 if self.window is None else max(0, self.offset + 1 - self.window)

    def reserve(self, tokens: int) -> bool:
        """Make room for ``tokens`` more; false where the window's storage is too small for so many at once."""
        end = self.offset + tokens
        if end - self.base <= self.room:
            return True
        if self.window is not None and end - self.base > self.capacity:
            start = max(self.base, self.first - ROLLBACK)
            if end - start > self.capacity:
                return False
            self._grow(self.capacity)
            self._move(start)
            return True
        assert end - self.base <= self.capacity, "the loop stops at the capacity"
        self._grow(min(self.capacity, max(_round_up(end - self.base), 2 * self.room)))
        return True

    def update(self, keys: mx.array, values: mx.array) -> tuple[KeysOrValues, KeysOrValues, Mask]:
        """Store new keys and values (1, G, L, D); return those to be looked at (1, G, S, D), and the mask."""
        length, first = keys.shape[2], self.first
        new = self.kv_format.packed(keys, values)
        mask = self._mask(length)
        if not self.reserve(length):
            joined = [
                mx.concatenate([*pair], axis=2)
                for pair in zip(self.part(first, self.offset), new, strict=True)
            ]
            self.replace(joined, first)
            return *self.kv_format.seen(joined), mask
        place = self.offset - self.base
        for array, piece in zip(self.arrays, new, strict=True):
            array[:, :, place : place + length] = piece
        self.offset += length
        return *self.kv_format.seen(self.part(first, self.offset)), mask

    def part(self, begin: int, end: int) -> list[mx.array]:
        """The arrays of the tokens from position ``begin`` to before ``end``, which must be held."""
        return [array[:, :, begin - self.base : end - self.base] for array in self.arrays]

    def replace(self, arrays: list[mx.array], begin: int) -> None:
        """Hold these tokens, the first at position ``begin``, and no others; of a window, only the last that it needs."""
        end = begin + int(arrays[0].shape[2])
        start = begin if self.window is None else max(begin, end + 1 - self.window - ROLLBACK)
        self.offset = self.base = start
        assert self.reserve(end - start), "what is kept has room"
        for array, piece in zip(self.arrays, arrays, strict=True):
            array[:, :, : end - start] = piece[:, :, start - begin :]
        self.offset = end

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false where older ones that would be looked at again are gone."""
        if offset >= self.offset:
            return True
        if offset == 0:
            self.base = 0
        elif self.window is not None and self.base > max(0, offset + 1 - self.window):
            return False
        self.offset = offset
        return True

    def copy(self) -> KVCache:
        """Return a cache of the same tokens that goes its own way."""
        twin = copy(self)
        # A product, since MLX's other copies share memory until one is written to, and CPU kernels
        # write by address.
        twin.arrays = [array * 1 for array in self.arrays]
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in self.arrays)

    def _mask(self, length: int) -> Mask:
        if length == 1:
            return None
        if self.window is None or self.offset + length <= self.window:
            return "causal"
        seen = self.offset - self.first
        distance = mx.arange(seen, seen + length)[:, None] - mx.arange(seen + length)[None]
        return (distance >= 0) & (distance < self.window)

    def _grow(self, room: int) -> None:
        used = self.offset - self.base
        for place, (array, larger) in enumerate(
            zip(self.arrays, self.kv_format.empty(room), strict=True)
        ):
            larger[:, :, :used] = array[:, :, :used]
            self.arrays[place] = larger

    def _move(self, start: int) -> None:
        """Let what lies at position ``start`` be first."""
        for array, rest in zip(self.arrays, self.part(start, self.offset), strict=True):
            array[:, :, : self.offset - start] = rest
        self.base = start


def stored(caches: Iterable[Cache]) -> list[mx.array]:
    """The arrays of some caches, to be evaluated."""
    return [array for cache in caches for array in cache.arrays]


def storage_tokens(context: int, window: int | None) -> int:
    """Tokens that a cache for ``context`` tokens holds at the most."""
    return context if window is None else min(context, window + SLACK)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP
