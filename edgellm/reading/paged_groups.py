"""Weights larger than memory: groups of tensors that stay, and a ring of buffers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.reading.disk_reader import Reader, Ticket

MadeT = TypeVar("MadeT")


@dataclass(slots=True)
class Traffic:
    """The cost of streaming so far.

    Attributes:
        passes: over all streamed weights; a fraction where a run ended half-way.
        waited: seconds that the arithmetic waited for the disk.
    """

    passes: float = 0.0
    waited: float = 0.0


@runtime_checkable
class Streaming(Protocol):
    """Layers of which weights may stream, here at least."""

    @property
    def traffic(self) -> Traffic:
        """The cost of that so far, on this machine."""
        ...


@dataclass(slots=True)
class Load:
    """A buffer of the ring, and the read that fills it with a group."""

    buffer: WeightBuffer
    index: int
    ticket: Ticket


class PagedGroups(Generic[MadeT]):
    """Groups of tensors, and what computes over them; only the pinned ones are always in memory.

    The ring is filled in the order of the groups, round and round: while one is used, the next ones
    are read, across the borders of passes. No weight memory is allocated after construction.

    Args:
        groups: the tensors of each.
        pinned: numbers of those that stay.
        ring_buffers: how many buffers the ring has.
        reader: fills them.
        make: builds what computes over a buffer that holds a group, by its number, now or later.
        kinds: of each group, what else differs between those of one layout.
        on_pinned: called with each pinned group that has arrived: its number, and what was built.

    Attributes:
        traffic: the cost so far.
        pinned: what was built over the groups that stay, by number.
    """

    def __init__(
        self,
        groups: Sequence[TensorGroup],
        pinned: Sequence[int],
        ring_buffers: int,
        reader: Reader,
        make: Callable[[int, WeightBuffer], MadeT],
        *,
        kinds: Sequence[Hashable],
        on_pinned: Callable[[int, MadeT], None] = lambda _number, _made: None,
    ) -> None:
        self.traffic: Traffic = Traffic()
        self._groups = groups
        self._reader = reader
        self._streamed = [index for index in range(len(groups)) if index not in set(pinned)]
        self.pinned: dict[int, MadeT] = self._load_pinned(pinned, make, on_pinned)
        buffer_bytes = max((groups[index].layout.nbytes for index in self._streamed), default=0)
        self._buffers = [WeightBuffer(buffer_bytes) for _ in range(ring_buffers)]
        # One object for each buffer and each kind of group in it: all groups that are used alike
        # and whose tensors lie alike share it, since only the bytes below it change.
        self._kinds = [(group.layout, kind) for group, kind in zip(groups, kinds, strict=True)]
        by_kind = {self._kinds[index]: index for index in self._streamed}
        self._made = {
            (id(buffer), kind): make(index, buffer)
            for buffer in self._buffers
            for kind, index in by_kind.items()
        }
        self._ring: deque[Load] = deque()
        self._next = 0
        self._read_ahead(self._buffers)

    @property
    def made(self) -> list[MadeT]:
        """All objects that were built and are not freed."""
        return [*self.pinned.values(), *self._made.values()]

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that a pass reads."""
        return sum(self._groups[index].nbytes for index in self._streamed)

    def take(self, index: int) -> tuple[MadeT, Load | None]:
        """Return what computes over group ``index`` once it is there, and its load if it streams.

        Groups are taken in their order, and a load is given back with ``release``.

        Raises ReadError, after which ``stop`` makes all buffers free.
        """
        pinned = self.pinned.get(index)
        if pinned is not None:
            return pinned, None
        load = self._ring.popleft()
        assert load.index == index, "the ring runs in the order of the groups"
        if not load.ticket.done():
            begun = time.perf_counter()
            load.ticket.settle()
            self.traffic.waited += time.perf_counter() - begun
        try:
            load.ticket.wait()
        except BaseException:
            self._ring.appendleft(load)
            raise
        return self._made[id(load.buffer), self._kinds[index]], load

    def release(self, load: Load) -> None:
        """Read into a buffer what comes next, when nothing computes from it any more."""
        self.traffic.passes += self._groups[load.index].nbytes / self.streamed_bytes
        self._read_ahead([load.buffer])

    def rewind(self) -> None:
        """Let the ring begin with the first streamed group, as it does after a whole pass."""
        if not self._streamed:
            return
        if len(self._ring) != len(self._buffers) or self._ring[0].index != self._streamed[0]:
            self.stop()
            self._next = 0
            self._read_ahead(self._buffers)

    def stop(self) -> None:
        """Forget what is being read, once those reads have ended; then every buffer is free."""
        for load in self._ring:
            load.ticket.settle()
        self._ring.clear()

    def close(self) -> None:
        """Wait for the reads under way, and free the weights."""
        self.stop()
        self.pinned.clear()
        self._made.clear()
        self._buffers.clear()

    def _load_pinned(
        self,
        pinned: Sequence[int],
        make: Callable[[int, WeightBuffer], MadeT],
        on_pinned: Callable[[int, MadeT], None],
    ) -> dict[int, MadeT]:
        loads = []
        # all reads are asked for before the first one is waited for
        for index in pinned:
            buffer = WeightBuffer(self._groups[index].layout.nbytes)
            ticket = self._reader.submit(self._groups[index].extents, buffer.memory)
            loads.append(Load(buffer, index, ticket))
        made = {}
        for load in loads:
            load.ticket.wait()
            made[load.index] = make(load.index, load.buffer)
            on_pinned(load.index, made[load.index])
        return made

    def _read_ahead(self, buffers: Sequence[WeightBuffer]) -> None:
        """Begin to fill free buffers with the groups that come next."""
        for buffer in buffers:
            index = self._streamed[self._next]
            self._next = (self._next + 1) % len(self._streamed)
            ticket = self._reader.submit(self._groups[index].extents, buffer.memory)
            self._ring.append(Load(buffer, index, ticket))
