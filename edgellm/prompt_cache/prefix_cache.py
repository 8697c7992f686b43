"""Prefix cache: what a prompt has in common with the sequence before is not computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgellm.kv_cache.cache import Cache
from edgellm.prompt_cache.disk_cache import MIN_TOKENS, PromptCache

MakeCaches = Callable[[int], list[Cache]]
"""Makes one cache a layer, with storage for so many tokens at first."""


class PrefixCache:
    """The KV caches between generations, of one sequence at a time, and the tokens they hold.

    Args:
        make_caches: makes one cache a layer.
        prompt_cache: sequences on disk. A prefix is read from there; a sequence is written when
            another one takes its place and when the model is closed, so that the turns of a
            conversation cost nothing in between.

    Attributes:
        restored: tokens of the last prompt that came from the disk.
    """

    def __init__(self, make_caches: MakeCaches, prompt_cache: PromptCache | None = None) -> None:
        self._make_caches = make_caches
        self._prompt_cache = prompt_cache
        self._caches: list[Cache] | None = None
        self._tokens: list[int] = []
        self._tokens_on_disk = 0
        self.restored = 0

    def begin(
        self, ids: Sequence[int], reserve: int, *, reuse: bool, restore: bool = False
    ) -> tuple[list[Cache], int]:
        """Return the caches, and how many of ``ids`` they hold.

        Never all: the logits of the last one are wanted.

        Args:
            ids: the prompt.
            reserve: tokens that storage is made for at once; it grows where that is too few.
            reuse: keep what the prompt has in common with the sequence before.
            restore: take what is on disk too; also implies ``reuse`` where there is a prompt cache.
        """
        restore = restore and self._prompt_cache is not None
        if self._caches is None:
            self._caches = self._make_caches(reserve)
        prefix = ids[:-1]
        common = 0
        if reuse or restore:
            common = _common_length(self._tokens, prefix)
        if common < len(self._tokens):
            self._write()
        # No tokens until ``keep``: a failure in between leaves the caches in no state to go on
        # from.
        self._tokens = []
        self._tokens_on_disk = min(self._tokens_on_disk, common)
        if not all(cache.trim(common) for cache in self._caches):
            # A window has dropped tokens that it would look at again.
            common = self._tokens_on_disk = 0
            _clear(self._caches)
        self.restored = 0
        if restore:
            self.restored = self._read(prefix, self._caches, common)
        if self.restored:
            self._tokens_on_disk = self.restored
        return self._caches, self._caches[0].offset

    def keep(self, tokens: Sequence[int]) -> None:
        """Note the sequence that the caches hold now; they may hold only its first tokens."""
        if self._caches is None:
            return
        offsets = {cache.offset for cache in self._caches}
        if len(offsets) == 1:
            self._tokens = list(tokens[: offsets.pop()])
        else:  # a failure in the middle of a pass: some layers have more than others
            _clear(self._caches)

    def close(self) -> None:
        """Write the sequence to disk if it is to last, and free the caches."""
        self._write()
        self._caches = None
        self._tokens = []
        self._tokens_on_disk = 0

    def _read(self, prefix: Sequence[int], caches: Sequence[Cache], common: int) -> int:
        """Fill the caches from disk where it has at least ``MIN_TOKENS`` more than they hold.

        Returns how many tokens; after a failure 0, and the caches are empty.
        """
        min_tokens = common + MIN_TOKENS
        if self._prompt_cache is None or len(prefix) < min_tokens:
            return 0
        match = self._prompt_cache.find(prefix, caches)
        if match is None or match.common < min_tokens:
            return 0
        length = self._prompt_cache.load(match, caches)
        if not length:
            _clear(caches)
        return length

    def _write(self) -> None:
        """Write the sequence to disk, if it has at least ``MIN_TOKENS`` that are not there."""
        if self._prompt_cache is None or self._caches is None:
            return
        if len(self._tokens) >= self._tokens_on_disk + MIN_TOKENS:
            self._prompt_cache.save(self._tokens, self._caches)
            self._tokens_on_disk = len(self._tokens)


def _clear(caches: Sequence[Cache]) -> None:
    for cache in caches:
        cache.trim(0)


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    length = 0
    for mine, theirs in zip(left, right, strict=False):
        if mine != theirs:
            break
        length += 1
    return length
