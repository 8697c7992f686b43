"""The layers of a model on several machines, behind the seam ``models.layers.Layers``."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx

from edgellm.distributed.parts.cut import Window
from edgellm.distributed.parts.part import run_window
from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.distributed.remote.peer import Peer
from edgellm.distributed.remote.remote_cache import RemoteCache, remote_spans
from edgellm.distributed.remote.stages import in_pieces, joined, through_stages
from edgellm.kv_cache.cache import Cache
from edgellm.models.layers import KeepGoing, Layers, Span, States, StateSpans, always
from edgellm.runtime.caches import LayerCaches


class RemoteLayers:
    """Windows of layers, of which this machine and others have some each, in turn.

    Args:
        local: the layers of this machine.
        local_count: how many they are.
        peers: the other machines.
        windows: all of them, in the order of the model.
        openings: what each other machine is asked first, also when it comes back.
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
        openings: Sequence[Mapping[str, Any]],
        streams_weights: bool,
        takes_trees: bool,
    ) -> None:
        self.streams_weights = streams_weights
        self.takes_trees = takes_trees
        self.max_exact_rows: int = local.max_exact_rows
        self._local = local
        self._local_count = local_count
        self.peers = list(peers)
        self._openings = list(openings)
        self._windows = list(windows)
        # then parts of a prompt can be on several machines at once
        self._has_stages = (
            not streams_weights
            and self.max_exact_rows > 0
            and [window.machine for window in windows] == list(range(len(peers) + 1))
        )

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
        for peer, opening in zip(self.peers, self._openings, strict=True):
            if peer.is_lost:
                peer.join_again(opening)
        for _, cache in self._remote_caches(spans):
            cache.begin_pass()
        if self._has_stages and depth is None:
            pieces, piece_spans = in_pieces(states, spans)
            if len(pieces) > len(states):
                results = self._run_in_stages(pieces, piece_spans, keep_going)
                if not results:
                    return []
                self._advance(spans)
                return joined(results, states)
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
        self._advance(spans)
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
        shapes, body = packed(states)
        head = {**self._request(number, spans, layers), "states": shapes}
        answer, results = self.peers[number].request(head, body, keep_going=keep_going)
        return unpacked(answer["states"], results)

    def _run_in_stages(
        self, pieces: Sequence[mx.array], spans: StateSpans, keep_going: KeepGoing
    ) -> list[mx.array]:
        """Send parts of prompts through the machines, each of which computes another one."""

        def here(hidden: mx.array, state_spans: Sequence[Span]) -> mx.array | None:
            states = self._run_here([hidden], [state_spans], first.layers, keep_going)
            return states[0] if states else None

        first, *others = self._windows
        passed: dict[int, int] = {}
        requests: list[list[dict[str, Any]]] = [[] for _ in self.peers]
        for state_spans in spans:
            for window in others:
                number = window.machine - 1
                request = self._request(number, [state_spans], window.layers, passed)
                requests[number].append(request)
        computing = [
            partial(here, hidden, state_spans)
            for hidden, state_spans in zip(pieces, spans, strict=True)
        ]
        return through_stages(computing, list(zip(self.peers, requests, strict=True)), keep_going)

    def _request(
        self,
        number: int,
        spans: StateSpans,
        layers: range,
        passed: dict[int, int] | None = None,
    ) -> dict[str, Any]:
        """Return what a machine is asked, but for the hidden states.

        Args:
            number: the machine's, among the others.
            spans: whose tokens the states are.
            layers: of the machine.
            passed: tokens of each cache in earlier requests of this pass; these are added.
        """
        passed = {} if passed is None else passed
        offsets: dict[int, int] = {}
        told: list[list[Any]] = []
        for state_spans in spans:
            told.append([])
            for cache, span in remote_spans(state_spans, self._local_count + number):
                offsets.setdefault(cache.number, cache.offset + passed.get(cache.number, 0))
                levels = [int(level) for level in span.levels]
                told[-1].append([cache.number, int(span.length), bool(span.many), levels])
                passed[cache.number] = passed.get(cache.number, 0) + int(span.length)
        return {
            "ask": "run",
            "layers": [layers.start, layers.stop],
            "spans": told,
            "offsets": list(offsets.items()),
        }

    def _advance(self, spans: StateSpans) -> None:
        for span_caches in spans:
            for place in range(len(self.peers)):
                for cache, span in remote_spans(span_caches, self._local_count + place):
                    cache.advance(span)

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
