"""Layers larger than memory: pinned ones stay, the others stream through a ring of slots ahead of the arithmetic."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.buffer import DTYPES, WeightBuffer
from edgellm.checkpoint.checkpoint import Part
from edgellm.checkpoint.folder import TensorInfo
from edgellm.errors import ClosedError, ReadError
from edgellm.kv_cache.cache import stored
from edgellm.models.linear import linear_from
from edgellm.models.llama import Layer, ResidentEmbedding, Span, always, rows_of
from edgellm.reading.disk_reader import Reader, Ticket
from edgellm.reading.open_files import OpenFiles

MakeLayer = Callable[[Part, WeightBuffer], Layer]


@dataclass(slots=True)
class Traffic:
    """What streaming has cost so far; seconds are those that the arithmetic waited for the disk."""

    passes: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class _Loaded:
    """A slot, and the read that fills it with a layer."""

    slot: WeightBuffer
    index: int
    ticket: Ticket


class PagedLayers:
    """Decoder layers of which only the pinned ones are always in memory.

    The ring is filled in the order of the layers, round and round: while one layer computes, the
    next ones are read, across the borders of tokens and turns. A slot is refilled only when
    everything that computes from it is evaluated. No weight memory is allocated after construction.

    Args:
        parts: the layers, in their order.
        pinned: those that stay.
        slots: of the ring.
        reader: fills them.
        make_layer: builds a layer over a slot.
        lag: streamed layers that may still compute while the next is launched, so that a GPU never
            waits for a launch.
    """

    streams_weights = True
    async_compute = False

    def __init__(
        self,
        parts: Sequence[Part],
        pinned: Sequence[int],
        slots: int,
        reader: Reader,
        make_layer: MakeLayer,
        *,
        lag: int = 0,
    ) -> None:
        self._lag = min(lag, slots - 1)
        self._parts = parts
        self._reader = reader
        self._make_layer = make_layer
        self._streamed = [index for index in range(len(parts)) if index not in set(pinned)]
        self._pinned: dict[int, Layer] = {}
        self.traffic = Traffic()
        self._closed = False
        loading = []
        for index in pinned:
            slot = WeightBuffer(parts[index].layout.nbytes)
            loading.append((index, slot, reader.submit(parts[index].extents, slot.memory)))
        for index, slot, ticket in loading:
            ticket.wait()
            self._pinned[index] = make_layer(parts[index], slot)
        size = max((parts[index].layout.nbytes for index in self._streamed), default=0)
        self._slots = [WeightBuffer(size) for _ in range(slots)]
        layouts = {parts[index].layout: parts[index] for index in self._streamed}
        self._layers = {
            (id(slot), layout): make_layer(part, slot)
            for slot in self._slots
            for layout, part in layouts.items()
        }
        self.max_exact_rows = max(
            (layer.max_exact_rows for layer in (*self._pinned.values(), *self._layers.values())),
            default=0,
        )
        self._ring: deque[_Loaded] = deque()
        self._next = 0
        self._read_ahead(self._slots)

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that a pass reads."""
        return sum(self._parts[index].nbytes for index in self._streamed)

    def run(
        self,
        states: Sequence[mx.array],
        spans: Sequence[Sequence[Span]],
        *,
        keep_going: Callable[[], bool] = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; every state goes through a layer before the next one is needed.

        Where ``keep_going`` says no before a layer, the list is empty, and the next call starts
        with fresh reads.

        Raises:
            ReadError: a layer cannot be read; the next call starts with fresh reads.
            ClosedError: the layers were closed.
        """
        if self._closed:
            raise ClosedError("the model was closed")
        self._rewind()
        moved = list(states)
        computing: deque[tuple[_Loaded, list[mx.array]]] = deque()
        try:
            for index in range(len(self._parts)):
                if not keep_going():
                    mx.synchronize()
                    self._drop()
                    return []
                layer = self._pinned.get(index)
                loaded = None
                if layer is None:
                    loaded = self._take(index)
                    layer = self._layers[id(loaded.slot), self._parts[index].layout]
                moved = [
                    layer(hidden, rows_of(own, index))
                    for hidden, own in zip(moved, spans, strict=True)
                ]
                if loaded is not None:
                    results = [*moved, *stored(span.caches[index] for own in spans for span in own)]
                    mx.async_eval(*results)
                    computing.append((loaded, results))
                while len(computing) > self._lag:
                    self._release(*computing.popleft())
            while computing:
                self._release(*computing.popleft())
        except BaseException:
            mx.synchronize()
            self._drop()
            raise
        return moved

    def close(self) -> None:
        """Wait for the reads under way, and let the weights go."""
        if self._closed:
            return
        self._closed = True
        for loaded in self._ring:
            loaded.ticket.settle()
        self._ring.clear()
        self._pinned.clear()
        self._layers.clear()
        self._slots.clear()

    def _release(self, loaded: _Loaded, results: Sequence[mx.array]) -> None:
        """Once nothing computes from a slot any more, read into it what comes next."""
        mx.eval(*results)
        self.traffic.passes += self._parts[loaded.index].nbytes / self.streamed_bytes
        self._read_ahead([loaded.slot])

    def _take(self, index: int) -> _Loaded:
        """The slot that holds layer ``index``, once it has arrived."""
        loaded = self._ring.popleft()
        assert loaded.index == index, "the ring runs in the order of the layers"
        if not loaded.ticket.done():
            begun = time.perf_counter()
            loaded.ticket.settle()
            self.traffic.waited += time.perf_counter() - begun
        try:
            loaded.ticket.wait()
        except BaseException:
            self._ring.appendleft(loaded)
            raise
        return loaded

    def _read_ahead(self, slots: Sequence[WeightBuffer]) -> None:
        """Begin to fill free slots with the layers that come next."""
        for slot in slots:
            index = self._streamed[self._next]
            self._next = (self._next + 1) % len(self._streamed)
            part = self._parts[index]
            self._ring.append(_Loaded(slot, index, self._reader.submit(part.extents, slot.memory)))

    def _rewind(self) -> None:
        """After a run that was left half-way the ring stands elsewhere than at the first layer: begin anew."""
        if len(self._ring) != len(self._slots) or self._ring[0].index != self._streamed[0]:
            self._drop()
            self._next = 0
            self._read_ahead(self._slots)

    def _drop(self) -> None:
        """Forget what is being read; the slots are free once those reads have ended."""
        for loaded in self._ring:
            loaded.ticket.settle()
        self._ring.clear()


class PagedEmbedding:
    """A table of embeddings of which only the rows that are asked for are read.

    Rows are a few KB, so they are read at once, past the queue of the layers.
    """

    def __init__(self, part: Part, dtype: mx.Dtype) -> None:
        self._part, self._dtype = part, dtype
        self._files = OpenFiles(direct=False)
        for tensor in part.tensors.values():
            self._files.descriptor(tensor.file)
        self.bytes_read = 0

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of tokens (B, L). Raises ReadError."""
        rows, where = np.unique(np.array(tokens), return_inverse=True)
        tensors = {
            f"table.{name}": self._read(tensor, rows) for name, tensor in self._part.tensors.items()
        }
        table = linear_from(tensors, "table", self._part.quantizations[""])
        return ResidentEmbedding(table, self._dtype)(mx.array(where.reshape(tokens.shape)))

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _read(self, tensor: TensorInfo, rows: npt.NDArray[np.int64]) -> mx.array:
        width = tensor.nbytes // tensor.shape[0]
        found = np.empty((len(rows), width), np.uint8)
        for place, row in enumerate(rows.tolist()):
            offset = tensor.offset + row * width
            try:
                count = self._files.read(tensor.file, memoryview(found[place]), offset)
            except OSError as failure:
                raise ReadError(
                    f"reading {width} bytes at offset {offset} of {tensor.file} failed: {failure.strerror}"
                ) from failure
            if count != width:
                raise ReadError(
                    f"{tensor.file} ends at offset {offset + count}",
                    hint="download or convert the model again",
                )
        self.bytes_read += found.nbytes
        return mx.array(found).view(DTYPES[tensor.dtype]).reshape(len(rows), *tensor.shape[1:])
