"""The KV caches of sequences on this machine, which the first one keeps by their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.device.streams import borrowed_stream
from edgellm.errors import MachineError
from edgellm.kv_cache.cache import Cache, tree_caches
from edgellm.models.layers import Span
from edgellm.runtime.caches import LayerCaches


class HeldCaches:
    """Caches of this machine's layers, one per layer of each sequence."""

    def __init__(self) -> None:
        self._caches: dict[int, list[Cache]] = {}

    def __getitem__(self, number: int) -> list[Cache]:
        """Return those of a sequence."""
        return self._caches[number]

    def clear(self) -> None:
        """Free all of them."""
        self._caches.clear()

    def take_notes(self, notes: Sequence[Sequence[Any]], maker: LayerCaches | None) -> None:
        """Change caches as the first machine has noted; ``maker`` makes new ones."""
        with borrowed_stream():
            for kind, number, *rest in notes:
                if kind == "drop":
                    self._caches.pop(number, None)
                elif kind == "make":
                    assert maker is not None, "a part was opened"
                    capacity, reserve, context = rest
                    self._caches[number] = maker.make(
                        capacity=capacity, reserve=reserve, context=context
                    )
                else:
                    self._change(kind, self._caches[number], rest)

    def spans(self, head: Mapping[str, Any], window: range) -> list[list[Span]]:
        """Return whose tokens come, with caches that hold those before them and no others.

        Raises MachineError where a cache has fewer.
        """
        for number, offset in head["offsets"]:
            for cache in self._caches[number][window.start : window.stop]:
                if not cache.trim(offset) or cache.offset != offset:
                    raise MachineError(
                        f"a cache holds {cache.offset} tokens, and {offset} are needed",
                        hint="ask again: the text is computed from its beginning",
                    )
        return [
            [
                Span(self._caches[number], length, many, levels)
                for number, length, many, levels in state_spans
            ]
            for state_spans in head["spans"]
        ]

    def _change(self, kind: str, caches: list[Cache], rest: Sequence[Any]) -> None:
        match kind:
            case "copy":
                twin, offset, tokens = rest
                copies = [cache.copy_prefix(offset, tokens) for cache in caches]
                self._caches[twin] = [cache for cache in copies if cache is not None]
            case "resize":
                offset, tokens = rest
                for cache in caches:
                    cache.trim(offset)
                    cache.resize(tokens)
            case "move":
                for cache in tree_caches(caches):
                    cache.move(*rest)
