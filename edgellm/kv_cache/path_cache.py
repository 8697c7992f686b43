"""A KV cache while tokens of a trie go through a layer: many continuations of one beginning.

Tokens come in depth-first order. Each is written at its own position, over what an earlier branch
has left there, and sees the cache up to itself: those are just the tokens on its path. Afterwards
the cache holds the last token's path. So any number of sequences takes the memory of the longest.
"""

# L new tokens, S tokens that are looked at, G key/value heads, D head size

from __future__ import annotations

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.kv_cache.cache import KVCache
from edgellm.kv_cache.kv_format import KeysOrValues

Ints = npt.NDArray[np.int64]


class PathCache:
    """A KV cache as new tokens see it, each of which has a position of its own.

    Args:
        cache: holds all tokens before the first new one, and has storage for all positions.
        positions: of the new tokens (L,): each follows the last token before it that is one
            position less, new or in the cache.

    Attributes:
        cache: as above.
        positions: as above.
    """

    def __init__(self, cache: KVCache, positions: Ints) -> None:
        self.cache = cache
        self.positions = positions

    @property
    def offset(self) -> int:
        """The position of the first new token."""
        return int(self.positions[0])

    @property
    def end(self) -> int:
        """Tokens that the cache holds afterwards."""
        return int(self.positions[-1]) + 1

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays of keys and values, to be evaluated."""
        return self.cache.arrays

    @property
    def branches(self) -> tuple[Ints, Ints]:
        """The place of each branch's first new token, and how many tokens follow one another."""
        starts = np.flatnonzero(np.diff(self.positions, prepend=-2) != 1)
        return starts, np.diff(starts, append=len(self.positions))

    def update(
        self, keys: mx.array, values: mx.array
    ) -> tuple[KeysOrValues, KeysOrValues, mx.array]:
        """Store new keys and values (1, G, L, D); return those seen (1, G, S, D), and a mask."""
        cache, held = self.cache, self.offset
        new = cache.kv_format.pack(keys, values)
        arrays = [
            mx.concatenate([old_array[:, :, :held], new_array], axis=2)
            for old_array, new_array in zip(cache.arrays, new, strict=True)
        ]
        mask, path = _paths(self.positions)
        if cache.window is not None:
            seen_at = np.concatenate([np.arange(held), self.positions])
            mask &= self.positions[:, None] - seen_at < cache.window
        # what the last token's path has of these
        first = self.end - len(path)
        kept = mx.array(path)
        for array, part in zip(cache.arrays, new, strict=True):
            array[:, :, first : self.end] = part[:, :, kept]
        cache.offset = self.end
        return *cache.kv_format.unpack(arrays), mx.array(mask)


def _paths(positions: Ints) -> tuple[npt.NDArray[np.bool_], list[int]]:
    """Return what each new token sees of the cache and of the new ones, and the last one's path.

    The first is an array (L, positions[0] + L), the second the places of new tokens.
    """
    held, count = int(positions[0]), len(positions)
    mask = np.zeros((count, held + count), bool)
    path: list[int] = []  # places of the new tokens on it, one a position
    for place, position in enumerate(positions.tolist()):
        while path and positions[path[-1]] >= position:
            path.pop()
        path.append(place)
        mask[place, : positions[path[0]]] = True
        mask[place, [held + seen for seen in path]] = True
    return mask, path
