"""The KV caches between generations, and which tokens they hold: a prompt that begins alike need not compute those again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgellm.cache import Cache

MakeCaches = Callable[[int], list[Cache]]
"""Makes one cache a layer, with room for so many tokens at first."""


class PrefixCache:
    """The caches of one sequence at a time."""

    def __init__(self, make: MakeCaches) -> None:
        self._make = make
        self._caches: list[Cache] | None = None
        self._tokens: list[int] = []

    def begin(self, ids: Sequence[int], room: int, *, reuse: bool) -> tuple[list[Cache], int]:
        """Return the caches, and how many of ``ids`` they hold; never all, since the last one's logits are wanted.

        Args:
            ids: the prompt.
            room: tokens that storage is made for at once; it grows where that is too few.
            reuse: keep what the prompt has in common with the sequence before; else begin anew.
        """
        if self._caches is None:
            self._caches = self._make(room)
        common = 0
        if reuse:
            for mine, theirs in zip(self._tokens, ids[:-1], strict=False):
                if mine != theirs:
                    break
                common += 1
        self._tokens = []  # until ``keep``: a failure in between leaves the caches in no state to go on from
        if not all(cache.trim(common) for cache in self._caches):
            common = 0
            self._empty(self._caches)
        return self._caches, common

    def keep(self, tokens: Sequence[int]) -> None:
        """Note the sequence; of its tokens the caches hold the first. After a failure in mid-pass they hold none."""
        if self._caches is None:
            return
        offsets = {cache.offset for cache in self._caches}
        if len(offsets) == 1:
            self._tokens = list(tokens[: offsets.pop()])
        else:
            self._empty(self._caches)

    def close(self) -> None:
        """Free the caches."""
        self._caches, self._tokens = None, []

    def _empty(self, caches: Sequence[Cache]) -> None:
        for cache in caches:
            cache.trim(0)
