"""The layers of a model on several machines, behind the seam ``models.layers.Layers``."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import mlx.core as mx

from edgellm.distributed.parts.cut import Window
from edgellm.distributed.parts.part import run_window
from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.distributed.remote.cluster_layers import ClusterLayers
from edgellm.distributed.remote.peer import Opening, Peer
from edgellm.distributed.remote.remote_cache import RemoteCache, advance
from edgellm.distributed.remote.stages import StagedPass, in_pieces, joined
from edgellm.models.layers import (
    KeepGoing,
    Span,
    States,
    StateSpans,
    WindowedLayers,
    always,
    spans_in_part,
)
from edgellm.reading.paged_groups import Streaming, Traffic


class LaunchedStates:
    """Hidden states that are under way."""

    def __init__(self, staged: StagedPass, held: Sequence[tuple[RemoteCache, Span]]) -> None:
        self._staged = staged
        self._held = held

    def results(self) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no.

        Raises:
            MachineError, ReadError: as ``run`` does.
        """
        results = self._staged.results()
        if results:
            advance(self._held)
        return results

    def close(self) -> None:
        """End it: nobody wants it any more."""
        self._staged.close()


class RemoteLayers(ClusterLayers):
    """Windows of layers, of which this machine and others have some each, in turn.

    Args:
        local: the layers of this machine.
        local_count: how many they are.
        peers: the other machines.
        windows: all of them, in the order of the model.
        openings: what each other machine is asked first, also when it comes back.
        streams_weights: whether a machine reads weights from disk.
        takes_trees: whether all take trees of tokens.
        wait: ``LoadSettings.machine_wait``.
    """

    def __init__(
        self,
        local: WindowedLayers,
        local_count: int,
        peers: Sequence[Peer],
        windows: Sequence[Window],
        *,
        openings: Sequence[Opening],
        streams_weights: bool,
        takes_trees: bool,
        wait: float,
    ) -> None:
        super().__init__(local_count, peers, openings, wait=wait)
        self.streams_weights = streams_weights
        self.takes_trees = takes_trees
        self.max_exact_rows: int = local.max_exact_rows
        self._local = local
        self._windows = list(windows)
        # each machine in memory, with adjacent layers: then others compute while one does
        in_order = [window.machine for window in windows] == list(range(len(peers) + 1))
        self.stages: int = len(windows) if in_order and not streams_weights else 1
        # results do not depend on where a prompt is cut
        self._cuts_prompts = self.stages > 1 and self.max_exact_rows > 0

    def launch(
        self, states: States, spans: StateSpans, *, keep_going: KeepGoing = always
    ) -> LaunchedStates:
        """Let states go through the machines, and return while the others still compute.

        Raises:
            MachineError, ReadError, ClosedError: as ``run`` does.
        """
        held = self._begin(spans)
        return LaunchedStates(self._launch(list(states), spans, keep_going), held)

    @property
    def traffic(self) -> Traffic:
        """The cost of streaming so far, on this machine."""
        return self._local.traffic if isinstance(self._local, Streaming) else Traffic()

    def _through(
        self, states: list[mx.array], spans: StateSpans, keep_going: KeepGoing, depth: int | None
    ) -> list[mx.array]:
        if self._cuts_prompts and depth is None:
            pieces, piece_spans = in_pieces(states, spans)
            if len(pieces) > len(states):
                results = self._launch(pieces, piece_spans, keep_going).results()
                return joined(results, states) if results else []
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
        return states

    def _close_local(self) -> None:
        self._local.close()

    def _run_here(
        self, states: list[mx.array], spans: StateSpans, layers: range, keep_going: KeepGoing
    ) -> list[mx.array]:
        local = slice(self._local_count)
        own = [spans_in_part(state_spans, local) for state_spans in spans]
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

    def _launch(
        self, pieces: Sequence[mx.array], spans: StateSpans, keep_going: KeepGoing
    ) -> StagedPass:
        """Send hidden states through the machines, each of which computes another one."""

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
        return StagedPass(computing, list(zip(self.peers, requests, strict=True)), keep_going)

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
            passed: as ``_told`` has it.
        """
        told = self._told(number, spans, {} if passed is None else passed)
        return {"ask": "run", "layers": [layers.start, layers.stop], **told}
