"""A sequence's KV caches on another machine: their length is known here, no numbers.

The machine is told of each change before the next tokens come, and of the length with them: what
was forgotten here is forgotten there then. So a pass that failed half-way leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import count
from typing import Any
from weakref import finalize

import mlx.core as mx

from edgellm.distributed.remote.peer import Peer
from edgellm.errors import MachineError
from edgellm.kv_cache.cache import ROLLBACK, STEP, storage_tokens
from edgellm.kv_cache.token_tree import height, room
from edgellm.memory_plan.memory_estimate import layer_windows
from edgellm.models.layers import Span
from edgellm.runtime.caches import LayerCaches

_numbers = count(1)


class RemoteCache:
    """The caches of one sequence in all layers of another machine; a ``TreeCache``.

    Args:
        peer: the machine.
        layers: what makes its caches there.
        capacity: tokens that they hold at most.
        reserve: tokens that storage is made for at once.
        context: tokens that the sequence might have; None: ``capacity``.
    """

    def __init__(
        self, peer: Peer, layers: LayerCaches, *, capacity: int, reserve: int, context: int | None
    ) -> None:
        self.peer: Peer = peer
        self.offset: int = 0
        self._layers = layers
        self._capacity = capacity
        self._context = context or capacity
        self._allocated = min(capacity, reserve)
        windows = layer_windows(layers.checkpoint.config, layers.plan.context_window)
        self._windows = [window for window in windows if window and window < self._context]
        self._is_certain = True
        self._make()

    def _make(self) -> None:
        self._take_number()
        self._generation = self.peer.generation
        self.peer.note("make", self.number, self._capacity, self._allocated, self._context)

    def _take_number(self) -> None:
        self.number: int = next(_numbers)
        finalize(self, self.peer.note, "drop", self.number)

    @property
    def is_gone(self) -> bool:
        """Whether the machine was lost, and all that it held with it."""
        return self.peer.is_lost or self._generation != self.peer.generation

    @property
    def arrays(self) -> list[mx.array]:
        """No arrays: they are elsewhere."""
        return []

    @property
    def nbytes(self) -> int:
        """Bytes held on the other machine."""
        return self._layers.nbytes(capacity=self._allocated, context=self._context)

    @property
    def room(self) -> int:
        """New tokens that there is storage for at once."""
        rooms = [self._allocated - self.offset]
        for window in self._windows:
            most = storage_tokens(self._capacity, window)
            rooms.append(most - window - ROLLBACK if self._allocated >= most else rooms[0])
        return min(rooms)

    def begin_pass(self) -> None:
        """Note that tokens are on their way; until they are through, nobody knows what is held.

        Raises:
            MachineError: what was held is gone with the machine, which has come back.
        """
        if self.is_gone:
            if self.offset:
                raise MachineError(
                    f"machine {self.peer.machine.name} has come back without its caches",
                    hint="ask again: the text is computed from its beginning",
                )
            self._make()
        self._is_certain = False

    def advance(self, span: Span) -> None:
        """Note that the tokens of a span went through all layers."""
        length, needed = span.length, span.length
        if span.levels:
            length, needed = height(span.levels), room(span.levels)
        end = self.offset + needed
        if end > self._allocated:
            rounded = -(-end // STEP) * STEP
            self._allocated = min(self._capacity, max(rounded, 2 * self._allocated))
        self.offset += length
        self._is_certain = True

    def can_trim(self, offset: int) -> bool:
        """Return whether the machine still holds all that the token at ``offset`` looks at."""
        if offset == 0:
            return True
        if self.is_gone:
            return False
        if not self._windows:
            return True
        if self._is_certain and offset >= self.offset - ROLLBACK:
            return True
        head = {"ask": "can trim", "cache": self.number, "offset": offset}
        return bool(self._asked(head, gone=False))

    def trim(self, offset: int) -> bool:
        """Forget all tokens from ``offset`` on; false where tokens to look at again are gone."""
        if offset >= self.offset and self._is_certain:
            return True
        if not self.can_trim(offset):
            return False
        self.offset = min(self.offset, offset)
        return True

    def move(self, source: int, target: int) -> None:
        """Copy the token at one position to another."""
        if not self.is_gone:
            self.peer.note("move", self.number, source, target)

    def copy(self) -> RemoteCache:
        """Return independent caches of the same tokens."""
        return self.copy_prefix_of(self.offset, self._allocated)

    def copy_prefix(self, offset: int, tokens: int) -> RemoteCache | None:
        """Return independent caches of the first ``offset`` tokens; None where they cannot trim."""
        if not self.can_trim(offset):
            return None
        return self.copy_prefix_of(offset, tokens)

    def copy_prefix_of(self, offset: int, tokens: int) -> RemoteCache:
        """Return what ``copy_prefix`` does, where it is known that they can trim."""
        twin = copy(self)
        twin._take_number()
        twin.offset = min(offset, self.offset)
        twin._allocated = max(twin.offset, min(self._capacity, tokens))
        if not self.is_gone:  # else the copy is gone, too
            self.peer.note("copy", self.number, twin.number, twin.offset, tokens)
        return twin

    def resize(self, tokens: int) -> None:
        """Make storage for exactly ``tokens``, or for as many as are held where those are more."""
        self._allocated = max(self.offset, min(self._capacity, tokens))
        if not self.is_gone:
            self.peer.note("resize", self.number, self.offset, tokens)

    def ask(self, what: str, tokens: list[int]) -> int:
        """Ask the machine to ``find``, ``load`` or ``save`` tokens on its disk; return how many.

        Raises MachineError.
        """
        head = {"ask": "kept", "do": what, "cache": self.number, "tokens": tokens}
        answer, _ = self.peer.request(head)
        return int(answer["answer"])

    def restored(self, offset: int) -> None:
        """Note that the machine has read so many tokens from its disk."""
        self.offset = offset
        self._is_certain = True

    def finite_layers(self) -> list[bool]:
        """Return for each layer of the machine whether all its keys and values are finite."""
        if self.is_gone:
            return []
        answer = self._asked({"ask": "finite", "cache": self.number}, gone=[])
        return [bool(layer) for layer in answer]

    def _asked(self, head: Mapping[str, Any], *, gone: Any) -> Any:
        """Return what the machine answers, or ``gone`` where it is found to be that."""
        try:
            answer, _ = self.peer.request(head)
        except MachineError:
            if self.is_gone:
                return gone
            raise
        return answer["answer"]


def remote_spans(spans: Sequence[Span], place: int) -> list[tuple[RemoteCache, Span]]:
    """Return the spans of a state with their caches on the machine of that place in the list."""
    found = []
    for span in spans:
        cache = span.caches[place]
        assert isinstance(cache, RemoteCache), "the cluster makes this kind for its machines"
        found.append((cache, span))
    return found


def advance(held: Sequence[tuple[RemoteCache, Span]]) -> None:
    """Note that the tokens of spans went through all layers."""
    for cache, span in held:
        cache.advance(span)
