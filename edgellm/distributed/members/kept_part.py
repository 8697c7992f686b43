"""The prefix cache on disk of a part of a model that this machine computes for others."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.device.streams import borrowed_stream
from edgellm.kv_cache.cache import Cache
from edgellm.prompt_cache.disk_cache import PromptCache, default_folder


class KeptPart:
    """Sequences that end and begin here together with those of the other machines.

    They lie where this machine keeps its own, whatever the first machine names.

    Args:
        key: of the model and its settings, as the first machine says.
        part: what this machine has of the model, and how it computes.
    """

    def __init__(self, key: str, part: str) -> None:
        self._prompts = PromptCache(default_folder(), lambda: f"{key} {part}")

    def answer(self, what: str, tokens: Sequence[int], caches: Sequence[Cache]) -> int:
        """Find, load or save some tokens; return how many of them there are.

        Args:
            what: ``find``, ``load`` or ``save``.
            tokens: of the sequence.
            caches: one per layer of this machine.
        """
        with borrowed_stream():
            if what == "save":
                if all(cache.trim(len(tokens)) for cache in caches):
                    self._prompts.save(tokens, caches)
                return len(tokens)
            match = self._prompts.find(tokens, caches)
            if match is None:
                return 0
            if what == "find":
                return match.common
            return self._prompts.load(match, caches)
