"""KV caches as the CPU kernels see them: addresses, and what of them a call attends to."""

# L new tokens, S tokens attended to, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from edgellm.errors import BackendError
from edgellm.kernels.codegen.abi import ONE_SPLIT, SPLIT_KEYS
from edgellm.kernels.layer import Branches, KVView
from edgellm.kv_cache.cache import KVCache, LayerCache
from edgellm.kv_cache.path_cache import PathCache
from edgellm.kv_cache.token_tree import branches, height, room

KERNEL_KV_FORMATS: Mapping[tuple[int | None, mx.Dtype], str] = {
    (None, mx.float32): "f32",
    (None, mx.float16): "f16",
    (8, mx.float16): "q8",
    (4, mx.float16): "q4",
}
"""The KV formats that there are kernels for, by bits and type, as the kernels call them."""

MIN_WINDOW_SPLITS = 8
"""Splits that a window has at least, where it is long enough for them."""


class CacheMemory:
    """A cache's memory during a call that writes new keys and values and attends to all.

    Args:
        cache: of one sequence in one layer.
        tokens: new ones of the call.

    Attributes:
        view: what the kernels are told.
        window: tokens that a query sees; None: all before it.

    Raises:
        BackendError: there are no kernels for this cache.
    """

    def __init__(self, cache: LayerCache, tokens: int) -> None:
        if not isinstance(cache, KVCache):
            raise BackendError(f"there are no kernels for a {type(cache).__name__}")
        self._cache = cache
        self.window: int | None = cache.window
        self._window_start = cache.window_start
        self._end = cache.offset + tokens
        # the old and the new tokens side by side, where the cache has no room for all of them
        self._joined: list[mx.array] = []
        if cache.reserve(tokens):
            self.view: KVView = _view(cache, cache.arrays, base=cache.base, end=self._end)
        else:
            # a window is too small for this many at once: the call writes beside what it holds
            held_arrays = cache.part(self._window_start, cache.offset)
            new_arrays = cache.kv_format.empty(tokens)
            self._joined = [
                mx.concatenate([old_array, new_array], axis=2)
                for old_array, new_array in zip(held_arrays, new_arrays, strict=True)
            ]
            self.view = _view(cache, self._joined, base=self._window_start, end=self._end)

    def keep(self) -> None:
        """Take the new tokens, which the call has written, into the cache."""
        if self._joined:
            self._cache.replace(self._joined, self._window_start)
            mx.eval(self._cache.arrays)
        else:
            self._cache.offset = self._end


class TreeMemory:
    """A cache's memory during a call that writes a tree of tokens (``kv_cache.token_tree``).

    Args:
        cache: of one sequence in one layer; it has room for the tree.
        levels: of the tree.

    Attributes:
        branches: what the kernels are told of each branch, and its tokens. Those that a later one
            is written over are also stored behind the tree.

    Raises:
        BackendError: there are no kernels for this cache.
    """

    def __init__(self, cache: LayerCache, levels: Sequence[int]) -> None:
        if not isinstance(cache, KVCache):
            raise BackendError(f"there are no kernels for a {type(cache).__name__}")
        self._cache = cache
        self._end = end = cache.offset + height(levels)
        has_room = cache.reserve(room(levels))
        assert has_room, "the decode loop makes no tree that is too large"
        view = _view(cache, cache.arrays, base=cache.base, end=end)
        self.branches: list[tuple[KVView, int]] = []
        for first, level, length, displaced in branches(levels):
            stop = cache.offset + level + length
            # as a call of these tokens alone would have it
            window = view.window
            if cache.window is None:
                window = stop
            branch = replace(
                view,
                position=cache.offset + level,
                length=stop,
                window=window,
                copied=displaced,
                copy_position=end + first + length - displaced,
            )
            self.branches.append((branch, length))

    def keep(self) -> None:
        """Take a token of each level, which the call has written, into the cache."""
        self._cache.offset = self._end


class PathMemory:
    """A cache's memory during a call that writes tokens of a trie (``kv_cache.path_cache``).

    Args:
        paths: of one layer; its cache has storage for all positions.

    Attributes:
        view: what the kernels are told of all branches.
        branches: where they are.

    Raises:
        BackendError: there are no kernels for this cache.
    """

    def __init__(self, paths: PathCache) -> None:
        cache = paths.cache
        assert cache.base == 0, "all of its tokens are held"
        self._cache = cache
        self._end = paths.end
        places, lengths = paths.branches
        starts = paths.positions[places]
        windows = starts + lengths
        if cache.window is not None:
            windows = np.full_like(lengths, cache.window)
        self.branches: Branches = Branches(starts, lengths, windows)
        self.view: KVView = _view(cache, cache.arrays, base=0, end=self._end)

    def keep(self) -> None:
        """Take the last token's path, which the call has written, into the cache."""
        self._cache.offset = self._end


class GrownCache:
    """A cache with room for a call's new tokens, at addresses that the call knows already.

    Args:
        cache: of one sequence in one layer.
        tokens: new ones of the call.
    """

    def __init__(self, cache: KVCache, tokens: int) -> None:
        self._cache = cache
        self.storage: int = cache.storage
        self.offset: int = cache.offset
        self._end = cache.offset + tokens

    def keep(self) -> None:
        """Take the new tokens, which the call has written, into the cache."""
        self._cache.offset = self._end


def _view(cache: KVCache, arrays: Sequence[mx.array], *, base: int, end: int) -> KVView:
    """Return what the kernels are told of arrays (1, G or 2G, capacity, ...).

    Args:
        cache: whose format and window count.
        arrays: of the cache, or in its format; evaluated here.
        base: the position of their first token.
        end: the position after the last new token.
    """
    kv_format = cache.kv_format
    kind = KERNEL_KV_FORMATS.get((kv_format.bits, kv_format.dtype))
    if kind is None:
        raise BackendError(
            f"there are no kernels for a cache of {kv_format.dtype} and {kv_format.bits} bits"
        )
    addresses, head_bytes = [], []
    for array in arrays:
        memory = np.array(array, copy=False)
        _, head_stride, token_stride, _ = memory.strides
        # where position 0 would lie: kernels count positions, not places
        addresses.append(memory.ctypes.data - base * token_stride)
        head_bytes.append(head_stride)
    tables = (0, 0, 0, 0)
    if kv_format.bits is None:
        keys, values = addresses
    else:
        # in each array, the G heads of values lie behind the G heads of keys
        keys, key_scales, key_biases = addresses
        values, value_scales, value_biases = (
            address + kv_format.heads * head_stride
            for address, head_stride in zip(addresses, head_bytes, strict=True)
        )
        tables = (key_scales, key_biases, value_scales, value_biases)
    window, max_exponent = end, ONE_SPLIT
    if cache.window is not None:
        window, max_exponent = cache.window, _max_exponent(cache.window)
    return KVView(
        kind=kind,
        keys=keys,
        values=values,
        head_bytes=head_bytes[0],
        position=cache.offset,
        length=end,
        window=window,
        max_exponent=max_exponent,
        tables=tables,
    )


def _max_exponent(window: int) -> int:
    """Return the exponent of a window's largest split (``abi.split_of``)."""
    return max(0, (window // (MIN_WINDOW_SPLITS * SPLIT_KEYS)).bit_length() - 1)
