"""Layers of which each machine has some rows of every matrix."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.distributed.parts.part import Part
from edgellm.distributed.parts.rows import RowLayers
from edgellm.distributed.remote.cluster_layers import ClusterLayers
from edgellm.distributed.remote.peer import Peer, asking_all
from edgellm.errors import ClosedError
from edgellm.models.cpu.block import in_calls
from edgellm.models.cpu.row_block import RowBlock, Rows, Stage
from edgellm.models.layers import KeepGoing, Span, StateSpans


class GatheredLayers(ClusterLayers):
    """Layers through which a token goes on all machines at once, gathered four times in each.

    Args:
        local: the rows of this machine.
        peers: the other machines, in the order of their rows.
        openings: what each of them is asked first, also when it comes back.
    """

    streams_weights = False
    takes_trees = False

    def __init__(
        self, local: Part[RowLayers], peers: Sequence[Peer], openings: Sequence[Mapping[str, Any]]
    ) -> None:
        super().__init__(len(local.layers.blocks), peers, openings)
        self.max_exact_rows: int = local.layers.max_exact_rows
        self._local = local

    def _through(
        self, states: list[mx.array], spans: StateSpans, keep_going: KeepGoing, depth: int | None
    ) -> list[mx.array]:
        if not self._local.layers.blocks:
            raise ClosedError("the model was closed")
        passed: list[dict[int, int]] = [{} for _ in self.peers]
        results = []
        for hidden, state_spans in zip(states, spans, strict=True):
            call = partial(self._call, passed=passed, keep_going=keep_going, depth=depth)
            after = in_calls(hidden, state_spans, call)
            if after is None:
                return []
            results.append(after)
        return results

    def _call(
        self,
        hidden: Rows,
        spans: Sequence[Span],
        out: Rows,
        *,
        passed: Sequence[dict[int, int]],
        keep_going: KeepGoing,
        depth: int | None,
    ) -> bool:
        """Write rows (L, E) of one call after the layers; false where ``keep_going`` said no."""
        told = [self._told(number, [spans], own) for number, own in enumerate(passed)]
        call = _Call(self.peers, told, spans)
        for layer, block in enumerate(self._local.layers.blocks[:depth]):
            if not keep_going():
                return False
            hidden = call.through(layer, block, hidden)
        out[:] = hidden
        return True

    def _close_local(self) -> None:
        self._local.close()


@dataclass(frozen=True, slots=True)
class _Call:
    """Tokens that go through the layers at once.

    Attributes:
        peers: the other machines.
        told: what each of them is told of the tokens.
        spans: whose they are, with the caches here.
    """

    peers: Sequence[Peer]
    told: Sequence[Mapping[str, Any]]
    spans: Sequence[Span]

    def through(self, layer: int, block: RowBlock, hidden: Rows) -> Rows:
        """Return hidden states (L, E) after one layer, of which ``block`` is here."""

        def gather(stage: Stage, inputs: Rows, hidden: Rows) -> Rows:
            """Return what all machines make of the same inputs, their columns side by side."""
            head: dict[str, Any] = {"ask": "rows", "stage": stage, "layer": layer}
            heads = [{**head, **own} if stage == "attend" else head for own in self.told]
            body = [memoryview(np.ascontiguousarray(inputs)).cast("B")]
            with asking_all(self.peers, heads, body) as answers:
                parts = [block.run(stage, inputs, hidden, self.spans, layer)]
                parts += [
                    np.frombuffer(results, np.float32).reshape(len(inputs), -1)
                    for _, results in answers()
                ]
            return np.concatenate(parts, axis=1)

        hidden = gather("output", gather("attend", hidden, hidden), hidden)
        return gather("down", gather("gate", hidden, hidden), hidden)
