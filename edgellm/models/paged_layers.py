"""Decoder layers larger than memory: pinned ones, and a ring of buffers for the others."""

# L new tokens, E hidden

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

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
from edgellm.reading.disk_reader import Reader
from edgellm.reading.paged_groups import Load, PagedGroups, Traffic

MakeLayer = Callable[[int, WeightBuffer], Layer]
"""Builds the layer of a number over a buffer that holds its tensors, now or later."""


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
        # a ring in which every buffer computes would have none to read into
        self._launch_ahead = min(launch_ahead, ring_buffers - 1)
        self._count = len(groups)
        self._closed = False
        self._changes = changes

        def arrived(index: int, layer: Layer) -> None:
            if changes:
                layer.adapt(changes[index])
            on_pinned(groups[index].nbytes)

        self._weights = PagedGroups(
            groups, pinned, ring_buffers, reader, make_layer, kinds=configs, on_pinned=arrived
        )
        made = self._weights.made
        self.max_exact_rows: int = max((layer.max_exact_rows for layer in made), default=0)
        self.takes_trees: bool = all(isinstance(layer, TreeLayer) for layer in made)

    @property
    def traffic(self) -> Traffic:
        """The cost of streaming so far."""
        return self._weights.traffic

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that a pass reads."""
        return self._weights.streamed_bytes

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
        window = range(self._count)[part]
        if window.start == 0:
            self._weights.rewind()
        states = list(states)
        assert len(states) == len(spans), "each state has its sequences"
        computing: deque[tuple[Load, list[mx.array]]] = deque()
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
        self._weights.close()

    def _layer(self, index: int) -> tuple[Layer, Load | None]:
        """Return layer number ``index`` once its weights are there; and its load if it streams."""
        layer, load = self._weights.take(index)
        # the object is of a buffer, the change of a layer
        if load is not None and self._changes:
            layer.adapt(self._changes[index])
        return layer, load

    def _release(self, load: Load, results: Sequence[mx.array]) -> None:
        """Wait until nothing computes from a buffer any more, and read into it what comes next."""
        mx.eval(*results)
        self._weights.release(load)

    def _stop_half_way(self) -> None:
        """Wait for the arithmetic, and for reads under way: then every buffer is free."""
        mx.synchronize()
        self._weights.stop()


def _through(layer: Layer, hidden: mx.array, spans: Sequence[Span], index: int) -> mx.array:
    """Return a hidden state (1, L, E) after layer number ``index``."""
    levels = spans[0].levels
    if levels:
        assert isinstance(layer, TreeLayer), "takes_trees was asked"
        return layer.run_tree(hidden, spans[0].caches[index], levels)
    return layer(hidden, layer_spans(spans, index), many=spans[0].many)
