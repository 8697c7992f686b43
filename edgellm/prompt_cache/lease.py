"""The KV caches of a sequence that is computed, until they are given back to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import ref

from edgellm.kv_cache.cache import Cache
from edgellm.prompt_cache.kept_sequence import KeptSequence, as_tokens

if TYPE_CHECKING:
    from edgellm.prompt_cache.prefix_cache import PrefixCache


class Lease:
    """The KV caches of a sequence that is computed, until they are given back.

    Attributes:
        caches: one per layer.
        cached: tokens of the prompt that they hold.
        restored: those of them that came from the disk.
        prefilled: as ``KeptSequence`` has it; the caller keeps it up to date.
        nbytes: the most that they take.
    """

    def __init__(
        self,
        owner: PrefixCache,
        caches: list[Cache],
        *,
        restored: int,
        tokens_on_disk: int,
        is_wanted: bool,
        prefilled: int,
        nbytes: int,
    ) -> None:
        self._owner = owner
        self._tokens_on_disk = tokens_on_disk
        self._is_wanted = is_wanted
        self.caches: list[Cache] = caches
        self.cached: int = caches[0].offset
        self.restored = restored
        self.prefilled = prefilled
        self.nbytes = nbytes

    def keep(
        self,
        tokens: Sequence[int],
        *,
        is_wanted: bool | None = None,
        returns_to: object | None = None,
    ) -> None:
        """Give the caches back to be kept; they may hold only the first of the ``tokens``.

        Does nothing where they were given back before.

        Args:
            tokens: of the sequence.
            is_wanted: whether it is likely to go on; None: as ``begin`` was told by ``reuse``.
            returns_to: who gives ``begin`` its name when the sequence goes on.
        """
        if is_wanted is None:
            is_wanted = self._is_wanted
        caches, self.caches = self.caches, []
        # after a failure in the middle of a pass some layers have more than others
        offsets = {cache.offset for cache in caches}
        sequence = None
        if len(offsets) == 1:
            held = as_tokens(tokens[: offsets.pop()])
            if len(held):
                prefilled = min(self.prefilled, len(held))
                sequence = KeptSequence(caches, held, self._tokens_on_disk, is_wanted, prefilled)
                if returns_to is not None:
                    sequence.returns = ref(returns_to)
        self._owner.take_back(self, sequence)

    def drop(self) -> None:
        """Give the caches back to be freed; do nothing where they were given back before."""
        self.keep(())
