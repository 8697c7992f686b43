"""Decoder layers larger than memory: pinned ones, and a ring of buffers for the others."""

# L new tokens, E hidden

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import TensorGroup
from edgellm.checkpoint.layer_config import LayerConfig
from edgellm.errors import ClosedError
from edgellm.kv_cache.cache import stored
from edgellm.models.layers import (
    KeepGoing,
    Layer,
    LayerChange,
    Span,
    States,
    StateSpans,
    TreeLayer,
    always,
    caches_in_part,
    layer_spans,
)
from edgellm.reading.disk_reader import Reader, Ticket

MakeLayer = Callable[[int, WeightBuffer], Layer]
"""Builds the layer of a number over a buffer that holds its tensors, now or later."""


@dataclass(slots=True)
class Traffic:
    """The cost of streaming so far.

    Attributes:
        passes: over all streamed weights; a fraction where a run ended half-way.
        waited: seconds that the arithmetic waited for the disk.
    """

    passes: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class _Load:
    """A buffer of the ring, and the read that fills it with a layer."""

    buffer: WeightBuffer
    index: int
    ticket: Ticket


class PagedLayers:
    """Decoder layers, paged: only the pinned ones are always in memory.

    The ring is filled in the order of the layers, round and round: while one layer computes, the
    next ones are read, across the borders of tokens and of runs. A buffer is refilled only when
    everything that computes from it is evaluated. No weight memory is allocated after construction.

    Args:
        groups: tensors of each layer, in the layers' order.
        pinned: numbers of the layers that stay.
        ring_buffers: how many buffers the ring has.
        reader: fills them.
        make_layer: builds a layer over a buffer.
        configs: what is each layer's own.
        changes: by an adapter, of each layer; empty where there is none.
        launch_ahead: streamed layers that may still compute while the next is launched, so that a
            GPU never waits for a launch.
        on_pinned: called with the bytes of each pinned layer that has arrived.
    """

    streams_weights = True
    async_compute = False

    def __init__(
        self,
        groups: Sequence[TensorGroup],
        pinned: Sequence[int],
        ring_buffers: int,
        reader: Reader,
        make_layer: MakeLayer,
        *,
        configs: Sequence[LayerConfig],
        changes: Sequence[LayerChange] = (),
        launch_ahead: int = 0,
        on_pinned: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.traffic: Traffic = Traffic()
        # a ring in which every buffer computes would have none to read into
        self._launch_ahead = min(launch_ahead, ring_buffers - 1)
        self._groups = groups
        self._reader = reader
        self._closed = False
        self._changes = changes
        self._streamed = [index for index in range(len(groups)) if index not in set(pinned)]
        self._pinned = self._load_pinned(pinned, make_layer, on_pinned)
        buffer_bytes = max((groups[index].layout.nbytes for index in self._streamed), default=0)
        self._buffers = [WeightBuffer(buffer_bytes) for _ in range(ring_buffers)]
        # One layer for each buffer and each kind of layer in it: all layers that compute alike and
        # whose tensors lie alike share it, since only the bytes below it change.
        self._kinds = [
            (group.layout, config) for group, config in zip(groups, configs, strict=True)
        ]
        by_kind = {self._kinds[index]: index for index in self._streamed}
        self._layers = {
            (id(buffer), kind): make_layer(index, buffer)
            for buffer in self._buffers
            for kind, index in by_kind.items()
        }
        all_layers = [*self._pinned.values(), *self._layers.values()]
        self.max_exact_rows: int = max((layer.max_exact_rows for layer in all_layers), default=0)
        self.takes_trees: bool = all(isinstance(layer, TreeLayer) for layer in all_layers)
        self._ring: deque[_Load] = deque()
        self._next = 0
        self._read_ahead(self._buffers)

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that a pass reads."""
        return sum(self._groups[index].nbytes for index in self._streamed)

    def run(
        self,
        states: States,
        spans: StateSpans,
        *,
        keep_going: KeepGoing = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no.

        Every state goes through a layer before the next layer is needed, so that weights are read
        once for all of them. After a no or an error, the next call starts with fresh reads.

        Raises:
            ReadError: a layer cannot be read.
            ClosedError: the layers were closed.
        """
        return self.run_part(states, spans, slice(depth), keep_going=keep_going)

    def run_part(
        self,
        states: States,
        spans: StateSpans,
        part: slice,
        *,
        keep_going: KeepGoing = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after a part of the layers; the rest as in ``run``.

        Parts of a pass come in their order, the first one from layer 0 on: the ring reads on
        between them.
        """
        if self._closed:
            raise ClosedError("the model was closed")
        window = range(len(self._groups))[part]
        if window.start == 0:
            self._rewind()
        states = list(states)
        assert len(states) == len(spans), "each state has its sequences"
        computing: deque[tuple[_Load, list[mx.array]]] = deque()
        try:
            for index in window:
                if not keep_going():
                    self._stop_half_way()
                    return []
                layer, load = self._layer(index)
                # one by one, so that a state's memory is free as soon as the next one is there
                for place, state_spans in enumerate(spans):
                    if place and not keep_going():
                        self._stop_half_way()
                        return []
                    states[place] = _through(layer, states[place], state_spans, index)
                if load is not None:
                    caches = caches_in_part(spans, slice(index, index + 1))
                    computing.append((load, [*states, *stored(caches)]))
                    mx.async_eval(*computing[-1][1])
                while len(computing) > self._launch_ahead:
                    self._release(*computing.popleft())
            while computing:
                self._release(*computing.popleft())
        except BaseException:
            self._stop_half_way()
            raise
        return states

    def close(self) -> None:
        """Wait for the reads under way, and free the weights."""
        if self._closed:
            return
        self._closed = True
        self._drop_reads()
        self._pinned.clear()
        self._layers.clear()
        self._buffers.clear()

    def _load_pinned(
        self, pinned: Sequence[int], make_layer: MakeLayer, on_pinned: Callable[[int], None]
    ) -> dict[int, Layer]:
        loads = []
        # all reads are asked for before the first one is waited for
        for index in pinned:
            buffer = WeightBuffer(self._groups[index].layout.nbytes)
            ticket = self._reader.submit(self._groups[index].extents, buffer.memory)
            loads.append(_Load(buffer, index, ticket))
        layers = {}
        for load in loads:
            load.ticket.wait()
            layers[load.index] = layer = make_layer(load.index, load.buffer)
            if self._changes:
                layer.adapt(self._changes[load.index])
            on_pinned(self._groups[load.index].nbytes)
        return layers

    def _layer(self, index: int) -> tuple[Layer, _Load | None]:
        """Return layer number ``index`` once its weights are there; and its load if it streams."""
        pinned = self._pinned.get(index)
        if pinned is not None:
            return pinned, None
        load = self._take(index)
        layer = self._layers[id(load.buffer), self._kinds[index]]
        # the object is of a buffer, the change of a layer
        if self._changes:
            layer.adapt(self._changes[index])
        return layer, load

    def _take(self, index: int) -> _Load:
        """Take the first load of the ring once it has arrived. Raises ReadError."""
        load = self._ring.popleft()
        assert load.index == index, "the ring runs in the order of the layers"
        if not load.ticket.done():
            begun = time.perf_counter()
            load.ticket.settle()
            self.traffic.waited += time.perf_counter() - begun
        try:
            load.ticket.wait()
        except BaseException:
            self._ring.appendleft(load)
            raise
        return load

    def _release(self, load: _Load, results: Sequence[mx.array]) -> None:
        """Wait until nothing computes from a buffer any more, and read into it what comes next."""
        mx.eval(*results)
        self.traffic.passes += self._groups[load.index].nbytes / self.streamed_bytes
        self._read_ahead([load.buffer])

    def _read_ahead(self, buffers: Sequence[WeightBuffer]) -> None:
        """Begin to fill free buffers with the layers that come next."""
        for buffer in buffers:
            index = self._streamed[self._next]
            self._next = (self._next + 1) % len(self._streamed)
            ticket = self._reader.submit(self._groups[index].extents, buffer.memory)
            self._ring.append(_Load(buffer, index, ticket))

    def _rewind(self) -> None:
        """Let the ring begin with the first streamed layer, as it does after a whole run."""
        if len(self._ring) != len(self._buffers) or self._ring[0].index != self._streamed[0]:
            self._drop_reads()
            self._next = 0
            self._read_ahead(self._buffers)

    def _stop_half_way(self) -> None:
        """Wait for the arithmetic, and for reads under way: then every buffer is free."""
        mx.synchronize()
        self._drop_reads()

    def _drop_reads(self) -> None:
        """Forget what is being read, once those reads have ended."""
        for load in self._ring:
            load.ticket.settle()
        self._ring.clear()


def _through(layer: Layer, hidden: mx.array, spans: Sequence[Span], index: int) -> mx.array:
    """Return a hidden state (1, L, E) after layer number ``index``."""
    levels = spans[0].levels
    if levels:
        assert isinstance(layer, TreeLayer), "takes_trees was asked"
        return layer.run_tree(hidden, spans[0].caches[index], levels)
    return layer(hidden, layer_spans(spans, index), many=spans[0].many)
