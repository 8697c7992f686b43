"""The layers of a model on several machines, behind the seam ``models.layers.Layers``."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from edgellm.distributed.parts.cut import Window
from edgellm.distributed.parts.part import run_window
from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.distributed.remote.peer import Peer
from edgellm.distributed.remote.remote_cache import RemoteCache, remote_spans
from edgellm.kv_cache.cache import Cache
from edgellm.models.layers import KeepGoing, Layers, States, StateSpans, always
from edgellm.runtime.caches import LayerCaches


class RemoteLayers:
    """Windows of layers, of which this machine and others have some each, in turn.

    Args:
        local: the layers of this machine.
        local_count: how many they are.
        peers: the other machines.
        windows: all of them, in the order of the model.
        streams_weights: whether a machine reads weights from disk.
        takes_trees: whether all take trees of tokens.
    """

    async_compute = False

    def __init__(
        self,
        local: Layers,
        local_count: int,
        peers: Sequence[Peer],
        windows: Sequence[Window],
        *,
        streams_weights: bool,
        takes_trees: bool,
    ) -> None:
        self.streams_weights = streams_weights
        self.takes_trees = takes_trees
        self.max_exact_rows: int = local.max_exact_rows
        self._local = local
        self._local_count = local_count
        self.peers = list(peers)
        self._windows = list(windows)

    def run(
        self,
        states: States,
        spans: StateSpans,
        *,
        keep_going: KeepGoing = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no.

        Raises:
            MachineError: a machine is gone.
            ReadError: a machine cannot read a layer.
            ClosedError: the layers were closed.
        """
        states = list(states)
        remote = [cache for _, cache in self._remote_caches(spans)]
        for cache in remote:
            cache.begin_pass()
        for window in self._windows:
            layers = window.layers
            if depth is not None:
                layers = layers[: max(0, depth - window.first)]
            if not layers:
                continue
            if not keep_going():
                return []
            if window.machine == 0:
                states = self._run_here(states, spans, layers, keep_going)
            else:
                states = self._run_there(window.machine - 1, states, spans, layers, keep_going)
            if len(states) < len(spans):
                return []
        for span_caches in spans:
            for place in range(len(self.peers)):
                for cache, span in remote_spans(span_caches, self._local_count + place):
                    cache.advance(span)
        return states

    def close(self) -> None:
        """Free the weights here, and let the other machines go."""
        self._local.close()
        for peer in self.peers:
            peer.close()

    def _run_here(
        self, states: list[mx.array], spans: StateSpans, layers: range, keep_going: KeepGoing
    ) -> list[mx.array]:
        own = [
            [replace(span, caches=span.caches[: self._local_count]) for span in state_spans]
            for state_spans in spans
        ]
        return run_window(self._local, states, own, layers, keep_going)

    def _run_there(
        self,
        number: int,
        states: list[mx.array],
        spans: StateSpans,
        layers: range,
        keep_going: KeepGoing,
    ) -> list[mx.array]:
        offsets: dict[int, int] = {}
        told: list[list[Any]] = []
        for state_spans in spans:
            told.append([])
            for cache, span in remote_spans(state_spans, self._local_count + number):
                offsets[cache.number] = cache.offset
                levels = [int(level) for level in span.levels]
                told[-1].append([cache.number, int(span.length), bool(span.many), levels])
        shapes, body = packed(states)
        head = {
            "ask": "run",
            "layers": [layers.start, layers.stop],
            "states": shapes,
            "spans": told,
            "offsets": list(offsets.items()),
        }
        answer, results = self.peers[number].request(head, body, keep_going=keep_going)
        return unpacked(answer["states"], results)

    def _remote_caches(self, spans: StateSpans) -> list[tuple[int, RemoteCache]]:
        return [
            (place, cache)
            for state_spans in spans
            for place in range(len(self.peers))
            for cache, _ in remote_spans(state_spans, self._local_count + place)
        ]


@dataclass(frozen=True, slots=True)
class ClusterCaches:
    """Makes the caches of a sequence: one per layer of this machine, then one per other machine.

    Attributes:
        local: makes those here.
        peers: the other machines, each with what makes the caches of its layers.
    """

    local: LayerCaches
    peers: Sequence[tuple[Peer, LayerCaches]]

    def make(self, *, capacity: int, reserve: int, context: int | None = None) -> list[Cache]:
        """Return empty caches."""
        caches = self.local.make(capacity=capacity, reserve=reserve, context=context)
        for peer, layers in self.peers:
            caches.append(
                RemoteCache(peer, layers, capacity=capacity, reserve=reserve, context=context)
            )
        return caches

    def nbytes(self, *, capacity: int, context: int | None = None) -> int:
        """Return the bytes that these take on all machines when they are full."""
        layers = [self.local, *(own for _, own in self.peers)]
        return sum(own.nbytes(capacity=capacity, context=context) for own in layers)
