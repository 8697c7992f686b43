"""Layers on several machines, behind ``models.layers.Layers``, however they are divided."""

# L new tokens, E hidden

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from edgellm.distributed.remote.outages import Outages, tell
from edgellm.distributed.remote.peer import ChangedError, Opening, Peer
from edgellm.distributed.remote.remote_cache import RemoteCache, advance, remote_spans
from edgellm.errors import EdgeLLMError, MachineError
from edgellm.kv_cache.cache import Cache
from edgellm.models.layers import KeepGoing, Span, States, StateSpans, always
from edgellm.runtime.caches import LayerCaches

CALL_SECONDS = 0.2
"""Time between two calls of a machine that is gone."""

LEAST_CALL_SECONDS = 0.5
"""A machine may take so long to answer a call, however long ago it was heard."""

MOST_IN_VAIN = 3
"""Returns in a row after which no pass was through: a machine that is lost again each time."""


class ClusterLayers(ABC):
    """Layers that this machine and others compute together.

    Args:
        local_count: how many caches of a sequence are this machine's, those before the others.
        peers: the other machines.
        openings: what each of them is asked first, also when it comes back.
        wait: ``LoadSettings.machine_wait``.
    """

    async_compute = False

    def __init__(
        self,
        local_count: int,
        peers: Sequence[Peer],
        openings: Sequence[Opening],
        *,
        wait: float,
    ) -> None:
        self._local_count = local_count
        self.peers: list[Peer] = list(peers)
        self._openings = list(openings)
        self._wait = wait
        self._returns_in_vain = 0
        self._outages = Outages()

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
        held = self._begin(spans)
        results = self._through(list(states), spans, keep_going, depth)
        if results:
            advance(held)
            self._returns_in_vain = 0
        return results

    def are_back(self, keep_going: KeepGoing) -> bool:
        """Wait for machines that were lost; return whether all are there again.

        False where none was lost, where one does not come back in time, again and again is lost
        before a pass is through, or ``keep_going`` said no.
        """
        lost = [pair for pair in zip(self.peers, self._openings, strict=True) if pair[0].is_lost]
        if not lost and self._is_whole():
            return False
        are_back = False
        if self._wait and self._returns_in_vain < MOST_IN_VAIN:
            self._returns_in_vain += 1
            if not lost:
                tell("machines have lost each other: texts are computed again, and go on")
                time.sleep(CALL_SECONDS)
            are_back = all(self._is_back(peer, opening, keep_going) for peer, opening in lost)
        if not are_back:  # its error tells why
            self._outages.text_failed([peer.machine.name for peer, _ in lost if peer.is_lost])
        return are_back

    def _is_back(self, peer: Peer, opening: Opening, keep_going: KeepGoing) -> bool:
        """Call a machine until it is there again; false where it is not in time.

        One that was lost long ago, while nobody asked for a text, is called once.
        """
        name, ends_at = peer.machine.name, peer.heard_at + self._wait
        calls = 0
        while keep_going():
            left = ends_at - time.monotonic()
            if left <= 0 and calls:
                return False
            if left > 0:
                self._outages.lost(name, f"waiting for it up to {math.ceil(left)} s")
            calls += 1
            try:
                peer.join_again(opening, seconds=max(left, LEAST_CALL_SECONDS))
            except ChangedError:
                return False
            except EdgeLLMError:
                time.sleep(max(0.0, min(left, CALL_SECONDS)))
                continue
            self._outages.back(name, "texts are computed again up to here, and go on")
            return True
        return False

    def close(self) -> None:
        """Free the weights here, and let the other machines go."""
        self._close_local()
        for peer in self.peers:
            peer.close()

    def _begin(self, spans: StateSpans) -> list[tuple[RemoteCache, Span]]:
        """Make machines and caches ready for a pass; return the caches, and what comes into each.

        Raises:
            MachineError: a machine is gone, or has come back without its caches.
        """
        held = [
            pair
            for state_spans in spans
            for place in range(len(self.peers))
            for pair in remote_spans(state_spans, self._local_count + place)
        ]
        for peer, opening in zip(self.peers, self._openings, strict=True):
            if not peer.is_lost:
                continue
            if any(cache.peer is peer and cache.offset for cache, _ in held):
                # what it held is to be computed again when it is back: see ``are_back``
                raise MachineError(f"machine {peer.machine.name} is gone, amid a text")
            peer.join_again(opening)
            self._outages.back(peer.machine.name)
        for cache, _ in held:
            cache.begin_pass()
        return held

    def _is_whole(self) -> bool:
        """Return whether the machines have all connections among each other that they need."""
        return True

    @abstractmethod
    def _through(
        self, states: list[mx.array], spans: StateSpans, keep_going: KeepGoing, depth: int | None
    ) -> list[mx.array]:
        """Send states through all machines, as ``run`` says."""

    @abstractmethod
    def _close_local(self) -> None:
        """Free the weights here."""

    def _told(self, number: int, spans: StateSpans, passed: dict[int, int]) -> dict[str, Any]:
        """Return what a machine is told of tokens: whose they are, and where they begin.

        Args:
            number: the machine's, among the others.
            spans: whose tokens the states are.
            passed: tokens of each cache in earlier requests of this pass; these are added.
        """
        offsets: dict[int, int] = {}
        told: list[list[Any]] = []
        for state_spans in spans:
            told.append([])
            for cache, span in remote_spans(state_spans, self._local_count + number):
                offsets.setdefault(cache.number, cache.offset + passed.get(cache.number, 0))
                levels = [int(level) for level in span.levels]
                told[-1].append([cache.number, int(span.length), bool(span.many), levels])
                passed[cache.number] = passed.get(cache.number, 0) + int(span.length)
        return {"spans": told, "offsets": list(offsets.items())}


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
