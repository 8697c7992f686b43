"""Layers' weights, read in the order in which training visits them: there and back.

Buffers keep what is needed soonest, which is known (Belady 1966): at each turn the layers in memory
are used again. With S layers that stream and R buffers, a round there and back reads 2 (S - R)
layers, the least there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.reading.disk_reader import Reader, Ticket

Layer = TypeVar("Layer")


@dataclass(slots=True)
class _Held:
    """A buffer with a layer in it, or on its way."""

    buffer: WeightBuffer
    ticket: Ticket


class LayerVisits(Generic[Layer]):
    """Decoder layers in the order of visits; those that are not pinned share a few buffers.

    Args:
        groups: tensors of each layer.
        visits: numbers of the layers in the order of a round, which repeats itself.
        pinned: layers that stay.
        buffers: for the others.
        reader: fills them.
        make_layer: builds a layer over a buffer.
        configs: what is each layer's own besides its tensors; layers that lie alike and have equal
            ones share an object.

    Attributes:
        reads: layers that were read since it was made, pinned ones left out.
        waited: seconds that the arithmetic waited for the disk.
    """

    def __init__(
        self,
        groups: Sequence[TensorGroup],
        visits: Sequence[int],
        *,
        pinned: Sequence[int],
        buffers: int,
        reader: Reader,
        make_layer: Callable[[int, WeightBuffer], Layer],
        configs: Sequence[object],
    ) -> None:
        self.reads: int = 0
        self.waited: float = 0.0
        self._groups, self._reader, self._make_layer = groups, reader, make_layer
        self._configs = configs
        self._pinned: dict[int, Layer] = {}
        self._round = [index for index in visits if index not in set(pinned)]
        self._at = 0
        self._held: dict[int, _Held] = {}
        self._layers: dict[tuple[int, object, object], Layer] = {}
        self._load_pinned(pinned)
        streamed = set(self._round)
        nbytes = max((groups[index].layout.nbytes for index in streamed), default=0)
        self._free = [WeightBuffer(nbytes) for _ in range(min(buffers, len(streamed)))]
        self._read_ahead(using=None)

    @contextmanager
    def layer(self, index: int) -> Generator[Layer]:
        """Lend the layer of the next visit. Its results must be evaluated when the block ends.

        Raises:
            ReadError: it cannot be read.
        """
        if index in self._pinned:
            yield self._pinned[index]
            return
        assert self._round[self._at] == index, "layers are visited in their order"
        held = self._held[index]
        if not held.ticket.done():
            begun = time.perf_counter()
            held.ticket.settle()
            self.waited += time.perf_counter() - begun
        held.ticket.wait()
        self._at = (self._at + 1) % len(self._round)
        self._read_ahead(using=index)
        yield self._layer_over(index, held.buffer)
        self._read_ahead(using=None)

    def restart(self) -> None:
        """Begin a round anew, after one that ended half-way."""
        for held in self._held.values():
            held.ticket.settle()
        self._free += [held.buffer for held in self._held.values()]
        self._held.clear()
        self._at = 0
        self._read_ahead(using=None)

    def close(self) -> None:
        """Wait for the reads under way, and free the weights."""
        for held in self._held.values():
            held.ticket.settle()
        self._held.clear()
        self._free.clear()
        self._layers.clear()
        self._pinned.clear()

    def _load_pinned(self, pinned: Sequence[int]) -> None:
        loads = []
        for index in pinned:
            buffer = WeightBuffer(self._groups[index].layout.nbytes)
            loads.append(
                (index, buffer, self._reader.submit(self._groups[index].extents, buffer.memory))
            )
        for index, buffer, ticket in loads:
            ticket.wait()
            self._pinned[index] = self._make_layer(index, buffer)

    def _layer_over(self, index: int, buffer: WeightBuffer) -> Layer:
        """Return a layer over a buffer, the same for all that lie alike in it."""
        key = (id(buffer), self._groups[index].layout, self._configs[index])
        if key not in self._layers:
            self._layers[key] = self._make_layer(index, buffer)
        return self._layers[key]

    def _read_ahead(self, using: int | None) -> None:
        """Begin to read what is needed next, into buffers that are free or needed last."""
        while (missing := self._first_missing()) is not None:
            if not self._free:
                victim = self._needed_last(using)
                if victim is None or self._next_visit(victim) <= self._next_visit(missing):
                    return
                self._free.append(self._held.pop(victim).buffer)
            buffer = self._free.pop()
            ticket = self._reader.submit(self._groups[missing].extents, buffer.memory)
            self._held[missing] = _Held(buffer, ticket)
            self.reads += 1

    def _first_missing(self) -> int | None:
        ahead = (*self._round[self._at :], *self._round[: self._at])
        return next((index for index in ahead if index not in self._held), None)

    def _needed_last(self, using: int | None) -> int | None:
        """Return the layer in a buffer that is needed last, of those that nobody works on."""
        idle = [
            index for index, held in self._held.items() if index != using and held.ticket.done()
        ]
        return max(idle, key=self._next_visit, default=None)

    def _next_visit(self, index: int) -> int:
        """Return after how many visits a layer is needed."""
        ahead = (*self._round[self._at :], *self._round[: self._at])
        return ahead.index(index)
