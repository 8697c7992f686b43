"""Keys and values of the tokens so far, one cache a layer."""

# B batch, L new tokens, S tokens that are looked at, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Protocol, TypeVar

import mlx.core as mx

Mask = mx.array | str | None
"""What attention may look at: everything, ``"causal"``, or true where a query (row) sees a key (column)."""

AnyCache = TypeVar("AnyCache", "KVCache", "RotatingKVCache")

STEP = 256
"""Tokens; storage grows in multiples of it, by doubling."""


class Cache(Protocol):
    """What a layer asks of its cache."""

    offset: int
    keys: mx.array
    values: mx.array

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array, Mask]:
        """Store new keys and values (B, G, L, D); return all that are to be looked at (B, G, S, D), and the mask."""
        ...

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false where they cannot be told apart any more."""
        ...

    def copy(self) -> Cache:
        """Return a cache of the same tokens that goes its own way."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


class KVCache:
    """A cache of every token, up to ``capacity`` of them.

    Storage is written in place and doubles when it is full, so a token costs no allocation.
    """

    def __init__(self, *, heads: int, head_dim: int, capacity: int, dtype: mx.Dtype, reserve: int = STEP) -> None:
        self.capacity = capacity
        self.offset = 0
        shape = (1, heads, min(capacity, _round_up(reserve)), head_dim)
        self.keys = mx.zeros(shape, dtype)
        self.values = mx.zeros(shape, dtype)

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` tokens in all."""
        room = self.keys.shape[2]
        if tokens <= room:
            return
        room = min(self.capacity, max(_round_up(tokens), 2 * room))
        assert tokens <= room, "the loop stops at the capacity"
        self.keys = _grown(self.keys, self.offset, room)
        self.values = _grown(self.values, self.offset, room)

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array, Mask]:
        """Store new keys and values (B, G, L, D); return all so far (B, G, S, D), and the mask."""
        length = keys.shape[2]
        end = self.offset + length
        self.reserve(end)
        self.keys[:, :, self.offset : end] = keys
        self.values[:, :, self.offset : end] = values
        self.offset = end
        return self.keys[:, :, :end], self.values[:, :, :end], "causal" if length > 1 else None

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on."""
        self.offset = min(self.offset, offset)
        return True

    def copy(self) -> KVCache:
        """Return a cache of the same tokens that goes its own way."""
        return _copied(self)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.keys.nbytes + self.values.nbytes)


class RotatingKVCache:
    """A cache of the last ``window`` tokens: token ``p`` lies at place ``p % window``, and each new one replaces the oldest."""

    def __init__(self, *, heads: int, head_dim: int, window: int, dtype: mx.Dtype) -> None:
        self.window = window
        self.offset = 0
        self.keys = mx.zeros((1, heads, window, head_dim), dtype)
        self.values = mx.zeros((1, heads, window, head_dim), dtype)

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array, Mask]:
        """Store new keys and values (B, G, L, D); return those in the window (B, G, S, D), and the mask."""
        length = keys.shape[2]
        if length == 1 or self.offset + length <= self.window:
            place = self.offset % self.window
            self.keys[:, :, place : place + length] = keys
            self.values[:, :, place : place + length] = values
            self.offset += length
            held = min(self.offset, self.window)
            return self.keys[:, :, :held], self.values[:, :, :held], "causal" if length > 1 else None
        seen = min(self.offset, self.window - 1)
        all_keys = mx.concatenate([*self._last(self.keys, seen), keys], axis=2)
        all_values = mx.concatenate([*self._last(self.values, seen), values], axis=2)
        distance = mx.arange(seen, seen + length)[:, None] - mx.arange(seen + length)[None]
        mask = (distance >= 0) & (distance < self.window)
        kept = min(length, self.window)
        start = self.offset + length - kept
        self.keys = self._replaced(self.keys, keys[:, :, length - kept :], start)
        self.values = self._replaced(self.values, values[:, :, length - kept :], start)
        self.offset += length
        return all_keys, all_values, mask

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false once older tokens were replaced by those to be forgotten."""
        if offset >= self.offset:
            return True
        if self.offset > self.window and offset > 0:
            return False
        self.offset = offset
        return True

    def copy(self) -> RotatingKVCache:
        """Return a cache of the same tokens that goes its own way."""
        return _copied(self)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.keys.nbytes + self.values.nbytes)

    def _last(self, stored: mx.array, count: int) -> list[mx.array]:
        """The last ``count`` tokens, oldest first, in one or two pieces."""
        start, end = (self.offset - count) % self.window, self.offset % self.window
        if count == 0:
            return []
        if start < end:
            return [stored[:, :, start:end]]
        return [stored[:, :, start:], stored[:, :, :end]]

    def _replaced(self, stored: mx.array, new: mx.array, start: int) -> mx.array:
        place, length = start % self.window, new.shape[2]
        first = min(length, self.window - place)
        stored[:, :, place : place + first] = new[:, :, :first]
        if first < length:
            stored[:, :, : length - first] = new[:, :, first:]
        return stored


def stored(caches: Iterable[Cache]) -> list[mx.array]:
    """The arrays of some caches, to be evaluated."""
    return [array for cache in caches for array in (cache.keys, cache.values)]


def cache_bytes(*, heads: int, head_dim: int, tokens: int, item_bytes: int) -> int:
    """Bytes that one layer's cache of ``tokens`` tokens takes."""
    return 2 * heads * head_dim * tokens * item_bytes


def _copied(cache: AnyCache) -> AnyCache:
    """A copy whose memory is its own: sharing until one is written to would not do, since CPU kernels write by address."""
    twin = copy(cache)
    twin.keys, twin.values = cache.keys * 1, cache.values * 1  # a product, since MLX's other copies share memory
    return twin


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def _grown(stored: mx.array, used: int, room: int) -> mx.array:
    batch, heads, _, head_dim = stored.shape
    grown = mx.zeros((batch, heads, room, head_dim), stored.dtype)
    grown[:, :, :used] = stored[:, :, :used]
    return grown
