"""The KV caches between generations, and which tokens they hold: a prompt that begins alike need not compute those again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgellm.kv_cache.cache import Cache
from edgellm.prompt_cache.disk_cache import MIN_TOKENS, PromptCache

MakeCaches = Callable[[int], list[Cache]]
"""Makes one cache a layer, with room for so many tokens at first."""


class PrefixCache:
    """The caches of one sequence at a time.

    Args:
        make: makes caches.
        kept: sequences on disk. What begins there is read from there; a sequence is written when
            another one takes its place and when the model is closed, so that the turns of a
            conversation cost nothing in between.
    """

    def __init__(self, make: MakeCaches, kept: PromptCache | None = None) -> None:
        self._make, self._kept = make, kept
        self._caches: list[Cache] | None = None
        self._tokens: list[int] = []
        self._on_disk = 0
        self.restored = 0
        """Tokens of the last prompt that came from the disk."""

    def begin(
        self, ids: Sequence[int], room: int, *, reuse: bool, restore: bool = False
    ) -> tuple[list[Cache], int]:
        """Return the caches, and how many of ``ids`` they hold; never all, since the last one's logits are wanted.

        Args:
            ids: the prompt.
            room: tokens that storage is made for at once; it grows where that is too few.
            reuse: keep what the prompt has in common with the sequence before; else begin anew.
            restore: take what was kept on disk, or in memory, where anything is kept on disk.
        """
        restore = restore and self._kept is not None
        if self._caches is None:
            self._caches = self._make(room)
        common = 0
        if reuse or restore:
            for mine, theirs in zip(self._tokens, ids[:-1], strict=False):
                if mine != theirs:
                    break
                common += 1
        if common < len(self._tokens):
            self._write()
        self._tokens, self._on_disk = [], min(self._on_disk, common)
        # No tokens until ``keep``: a failure in between leaves the caches in no state to go on
        # from.
        if not all(cache.trim(common) for cache in self._caches):
            common = self._on_disk = 0
            self._empty(self._caches)
        self.restored = self._read(ids[:-1], self._caches, common) if restore else 0
        if self.restored:
            self._on_disk = self.restored
        return self._caches, self._caches[0].offset

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
        self._write()
        self._caches, self._tokens, self._on_disk = None, [], 0

    def _read(self, ids: Sequence[int], caches: Sequence[Cache], common: int) -> int:
        """How many of the tokens were read from disk; none where not many more are there than the caches hold.

        After a failure the caches are empty.
        """
        if self._kept is None or len(ids) < common + MIN_TOKENS:
            return 0
        found = self._kept.find(ids, caches)
        if found is None or found.common < common + MIN_TOKENS:
            return 0
        length = self._kept.load(found, caches)
        if not length:
            self._empty(caches)
        return length

    def _write(self) -> None:
        """Keep the sequence on disk, if it has grown there enough to be worth it."""
        if (
            self._kept is not None
            and self._caches is not None
            and len(self._tokens) >= self._on_disk + MIN_TOKENS
        ):
            self._kept.save(self._tokens, self._caches)
            self._on_disk = len(self._tokens)

    def _empty(self, caches: Sequence[Cache]) -> None:
        for cache in caches:
            cache.trim(0)
