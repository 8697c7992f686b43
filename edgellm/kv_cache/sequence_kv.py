"""Keys and values of a whole sequence that is seen at once: nothing is stored for later."""

from __future__ import annotations

import mlx.core as mx

from edgellm.kv_cache.cache import KVCache, Mask
from edgellm.kv_cache.kv_format import KeysOrValues, KVFormat


class SequenceKV(KVCache):
    """Stands where a cache would: every token sees itself and those before it, in its window.

    Args:
        kv_format: of keys and values.
        window: tokens that one looks at, itself included; None: all before it.
    """

    def __init__(self, kv_format: KVFormat, window: int | None = None) -> None:
        super().__init__(kv_format, capacity=0, reserve=0)
        self.window = window

    def update(self, keys: mx.array, values: mx.array) -> tuple[KeysOrValues, KeysOrValues, Mask]:
        """Return keys and values (1, G, L, D) as they came, and who sees what."""
        length = keys.shape[2]
        if self.window is None or length <= self.window:
            return keys, values, "causal"
        places = mx.arange(length)
        distance = places[:, None] - places[None]
        return keys, values, (distance >= 0) & (distance < self.window)
