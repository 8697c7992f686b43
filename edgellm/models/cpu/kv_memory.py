"""KV caches as the kernels see them: addresses, and what of them a call looks at."""

# L new tokens, S tokens that are looked at, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np

from edgellm.errors import BackendError
from edgellm.kernels.codegen.abi import ONE_SPLIT, SPLIT_KEYS
from edgellm.kernels.layer_steps import KVView
from edgellm.kv_cache.cache import Cache, KVCache

_KINDS: Mapping[tuple[int | None, mx.Dtype], str] = {
    (None, mx.float32): "f32",
    (None, mx.float16): "f16",
    (8, mx.float16): "q8",
    (4, mx.float16): "q4",
}

_WINDOW_SHARES = 8
"""Shares that a window has at the least, where it is long enough for them."""


class CacheMemory:
    """Where a cache's memory is for a call of some tokens, and what is to be done with it afterwards."""

    def __init__(self, cache: Cache, tokens: int) -> None:
        if not isinstance(cache, KVCache):
            raise BackendError(f"there are no kernels for a {type(cache).__name__}")
        self._cache, self._end, self._first = cache, cache.offset + tokens, cache.window_start
        self._joined: list[mx.array] = []
        arrays, base = cache.arrays, cache.base
        if cache.reserve(tokens):
            base = cache.base
        # a window that has no room for so many at once: they are looked at beside what it holds
        else:
            held = cache.part(self._first, cache.offset)
            new = cache.kv_format.empty(tokens)
            arrays = self._joined = [
                mx.concatenate([*pair], axis=2) for pair in zip(held, new, strict=True)
            ]
            base = self._first
        self.store = _store(cache, arrays, base=base, held=self._end)

    def keep(self) -> None:
        """Take the new tokens into the cache."""
        if self._joined:
            self._cache.replace(self._joined, self._first)
            mx.eval(self._cache.arrays)
        else:
            self._cache.offset = self._end


def _store(cache: KVCache, arrays: Sequence[mx.array], *, base: int, held: int) -> KVView:
    kept = cache.kv_format
    kind = _KINDS.get((kept.bits, kept.dtype))
    if kind is None:
        raise BackendError(f"there are no kernels for a cache of {kept.dtype} and {kept.bits} bits")
    places, heads = [], []
    for array in arrays:
        memory = np.array(array, copy=False)
        _, head_bytes, token_bytes, _ = memory.strides
        places.append(memory.ctypes.data - base * token_bytes)
        heads.append(head_bytes)
    if kept.bits is None:
        keys, values = places
        tables = (0, 0, 0, 0)
    else:  # values lie behind the keys
        keys, *own = places
        values, *others = (
            place + kept.heads * head for place, head in zip(places, heads, strict=True)
        )
        tables = (own[0], own[1], others[0], others[1])
    return KVView(
        kind=kind,
        keys=keys,
        values=values,
        head_bytes=heads[0],
        position=cache.offset,
        length=held,
        window=held if cache.window is None else cache.window,
        max_exponent=ONE_SPLIT if cache.window is None else _exponent(cache.window),
        tables=tables,
    )


def _exponent(window: int) -> int:
    """Of the largest share of a window."""
    return max(0, (window // (_WINDOW_SHARES * SPLIT_KEYS)).bit_length() - 1)
