"""KV caches as the kernels see them: addresses, and what of them a call looks at."""

# L new tokens, S tokens that are looked at, G key/value heads, D head size

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.cache import Cache, KVCache, RotatingKVCache
from edgellm.errors import BackendError
from edgellm.kernels.layer import Store


class CacheMemory:
    """Where a cache's memory is for a call of some tokens, and what is to be done with it afterwards."""

    def __init__(self, cache: Cache, tokens: int) -> None:
        self._cache, self._tokens = cache, tokens
        self._scratch: list[npt.NDArray[np.float32]] = []
        end = cache.offset + tokens
        if isinstance(cache, KVCache):
            cache.reserve(end)
            keys, values = self._arrays()
            self.store = _store(keys, values, place=cache.offset, held=end, window=end)
            return
        if not isinstance(cache, RotatingKVCache):
            raise BackendError(f"there are no kernels for a {type(cache).__name__}")
        keys, values = self._arrays()
        if tokens == 1:
            held = min(end, cache.window)
            self.store = _store(keys, values, place=cache.offset % cache.window, held=held, window=held)
            return
        seen = min(cache.offset, cache.window - 1)
        order = np.arange(cache.offset - seen, cache.offset) % cache.window
        _, heads, _, width = keys.shape
        for stored in (keys, values):
            unrolled = np.empty((1, heads, seen + tokens, width), np.float32)
            unrolled[:, :, :seen] = stored[:, :, order]
            self._scratch.append(unrolled)
        keys, values = self._scratch
        self.store = _store(keys, values, place=seen, held=seen + tokens, window=cache.window)

    def keep(self) -> None:
        """Take the new tokens into the cache."""
        cache = self._cache
        end = cache.offset + self._tokens
        if self._scratch and isinstance(cache, RotatingKVCache):
            kept = min(self._tokens, cache.window)
            order = np.arange(end - kept, end) % cache.window
            for stored, unrolled in zip(self._arrays(), self._scratch, strict=True):
                stored[:, :, order] = unrolled[:, :, unrolled.shape[2] - kept :]
        cache.offset = end

    def _arrays(self) -> list[npt.NDArray[np.float32]]:
        """The cache's keys and values (1, G, capacity, D), as memory to write to."""
        return [np.array(array, copy=False) for array in (self._cache.keys, self._cache.values)]


def _store(keys: npt.NDArray[np.float32], values: npt.NDArray[np.float32], *, place: int, held: int, window: int) -> Store:
    assert keys.dtype == np.float32, "on a CPU the cache is float32"
    return Store(
        keys=keys.ctypes.data,
        values=values.ctypes.data,
        head_bytes=keys.strides[1],
        place=place,
        held=held,
        window=window,
    )
