"""The prefix cache of several machines on disk: each keeps the caches of its own part."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.distributed.remote.remote_cache import RemoteCache
from edgellm.errors import EdgeLLMError
from edgellm.kv_cache.cache import Cache
from edgellm.prompt_cache.disk_cache import MIN_TOKENS, PromptCache
from edgellm.prompt_cache.sequence_file import PrefixMatch


@dataclass(frozen=True, slots=True)
class ClusterMatch(PrefixMatch):
    """A prefix that all machines have.

    Attributes:
        tokens: of it.
    """

    tokens: Sequence[int]


class ClusterPromptCache(PromptCache):
    """The sequences of one model on several machines; one counts if every machine has its part.

    Args:
        whole: of the model, as if it were on one machine.
        part: what this machine has of it, in words.
        local_count: how many caches of a sequence are this machine's, those before the others.
    """

    def __init__(self, whole: PromptCache, part: str, local_count: int) -> None:
        super().__init__(whole.folder, lambda: f"{whole.key} {part}", limit=whole.limit)
        self._local_count = local_count

    def find(self, tokens: Sequence[int], caches: Sequence[Cache]) -> ClusterMatch | None:
        """Return the longest prefix that all machines have, as ``PromptCache.find`` does.

        Raises MachineError.
        """
        own, others = self._divided(caches)
        match = super().find(tokens, own)
        if match is None:
            return None
        common = match.common
        for cache in others:
            common = min(common, cache.ask("find", list(tokens[:common])))
            if common < MIN_TOKENS:
                return None
        return ClusterMatch(match.path, common, match.tensors, match.metadata, tokens[:common])

    def load(self, match: PrefixMatch, caches: Sequence[Cache]) -> int:
        """Fill the caches on all machines, as ``PromptCache.load`` does. Raises MachineError."""
        assert isinstance(match, ClusterMatch), "it was found here"
        own, others = self._divided(caches)
        # what this machine has most of may not be the file that goes on after all machines' prefix
        found = super().find(match.tokens, own)
        if found is None or found.common != match.common or not super().load(found, own):
            return 0
        for cache in others:
            if cache.ask("load", list(match.tokens)) != match.common:
                return 0
            cache.restored(match.common)
        return match.common

    def save(self, tokens: Sequence[int], caches: Sequence[Cache]) -> None:
        """Keep a sequence on all machines; what one cannot keep costs a warning."""
        own, others = self._divided(caches)
        if any(cache.is_gone for cache in others):
            return
        super().save(tokens, own)
        for cache in others:
            try:
                cache.ask("save", list(tokens))
            except EdgeLLMError as error:
                warnings.warn(
                    f"the prompt's cache was not kept: {error.message}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _divided(self, caches: Sequence[Cache]) -> tuple[list[Cache], list[RemoteCache]]:
        """Return the caches that are here, and those of the other machines."""
        count = self._local_count
        return list(caches[:count]), [one for one in caches[count:] if isinstance(one, RemoteCache)]
