"""Layers of which each machine has some rows of every matrix."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import mlx.core as mx
import numpy as np

from edgellm.distributed.links.lane import LaneError
from edgellm.distributed.links.mesh import Mesh
from edgellm.distributed.parts.part import Part
from edgellm.distributed.parts.row_pass import Columns, RowPass
from edgellm.distributed.parts.rows import RowLayers, RowShare
from edgellm.distributed.remote.cluster_layers import ClusterLayers
from edgellm.distributed.remote.peer import Opening, Peer, Reply, asking_all
from edgellm.distributed.remote.remote_cache import advance
from edgellm.errors import ClosedError, EdgeLLMError, MachineError
from edgellm.kernels.exchange.gather import Bounds
from edgellm.models.cpu.row_block import Rows
from edgellm.models.layers import KeepGoing, Span, StateSpans, always
from edgellm.reading.paged_groups import Traffic


class GatheredLayers(ClusterLayers):
    """Layers through which a token goes on all machines at once, gathered a few times in each.

    Args:
        local: the rows of this machine.
        peers: the other machines, in the order of their rows.
        openings: what each of them is asked first, also when it comes back.
        shares: the rows of each machine, this one's first.
        columns: what each has of what is gathered.
        output: rows of the output matrix on each; None: this one has all.
        wait: ``LoadSettings.machine_wait``.
        streams_weights: whether a machine reads weights from disk.
    """

    takes_trees = True

    def __init__(
        self,
        local: Part[RowLayers],
        peers: Sequence[Peer],
        openings: Sequence[Opening],
        *,
        shares: Sequence[RowShare],
        columns: Columns,
        output: Sequence[Bounds] | None,
        wait: float,
        streams_weights: bool,
    ) -> None:
        super().__init__(local.layers.count, peers, openings, wait=wait)
        self.streams_weights = streams_weights
        self.max_exact_rows: int = local.layers.max_exact_rows
        self._local = local
        self._shares = list(shares)
        self._columns = columns
        self._output = output
        self._mesh: Mesh | None = None
        self._meshes = 0  # that were made
        self._generations: list[int] = []  # of the machines in the last one

    @property
    def traffic(self) -> Traffic:
        """The cost of streaming so far, on this machine."""
        return self._local.layers.traffic

    def meet(self) -> Mesh:
        """Return the mesh of all machines, made anew where it is no longer whole.

        Raises MachineError where two machines cannot reach each other.
        """
        generations = [peer.generation for peer in self.peers]
        if self._mesh is not None and self._mesh.is_whole and self._generations == generations:
            return self._mesh
        self._leave()
        self._meshes += 1
        told = {
            "ask": "meet",
            "mesh": self._meshes,
            "shares": [share.as_dict() for share in self._shares],
            "output": self._output,
            "machines": [
                [peer.machine.name, *peer.machine.address, peer.session] for peer in self.peers
            ],
        }
        lanes = {}
        try:
            for place, peer in enumerate(self.peers, 1):
                lanes[place] = peer.call_lane({"mesh": self._meshes, "from": 0})
            heads = [{**told, "place": place} for place in lanes]
            with asking_all(self.peers, heads) as answers:
                answers()
        except BaseException:
            for lane in lanes.values():
                lane.close()
            raise
        self._generations = generations
        self._mesh = Mesh(0, lanes)
        return self._mesh

    def pass_rows(
        self,
        rows: Rows,
        spans: Sequence[Span],
        keep_going: KeepGoing,
        *,
        wants_logits: bool = False,
    ) -> Rows | None:
        """Return hidden states (L, E) of a few tokens after all layers, or their logits (L, V).

        None where ``keep_going`` said no; what is raised is as in ``run``.
        """
        held = self._begin([spans])
        after = self._pass(rows, [spans], keep_going, None, wants_logits=wants_logits)
        if after is not None:
            advance(held)
            self._returns_in_vain = 0
        return after

    def logits(self, hidden: Rows) -> Rows:
        """Return the logits (L, V) of hidden states (L, E), of which each machine computes some.

        Raises as ``run``: a machine that is gone is not called, as it would come without caches.
        """
        for peer in self.peers:
            if peer.is_lost:
                raise MachineError(f"machine {peer.machine.name} is gone, amid a text")
        heads = [{"ask": "logits"}] * len(self.peers)
        logits = self._together(heads, hidden, lambda local: local.logits(hidden))
        assert logits is not None, "nobody stops it"
        return logits

    def _through(
        self, states: list[mx.array], spans: StateSpans, keep_going: KeepGoing, depth: int | None
    ) -> list[mx.array]:
        # (1, L, E) each -> (L, E), all of them side by side
        rows = np.concatenate([np.array(hidden, copy=False)[0] for hidden in states])
        after = self._pass(rows, spans, keep_going, depth)
        if after is None:
            return []
        ends = np.cumsum([hidden.shape[1] for hidden in states])
        return [mx.array(part[None]) for part in np.split(after, ends[:-1])]

    def _pass(
        self,
        rows: Rows,
        spans: StateSpans,
        keep_going: KeepGoing,
        depth: int | None,
        *,
        wants_logits: bool = False,
    ) -> Rows | None:
        told = [self._told(number, spans, {}) for number in range(len(self.peers))]
        heads = [{"ask": "rows", "depth": depth, "logits": wants_logits, **own} for own in told]

        def compute(local: RowPass) -> Rows | None:
            return local.run(
                rows, spans, keep_going=keep_going, depth=depth, wants_logits=wants_logits
            )

        return self._together(heads, rows, compute)

    def _together(
        self,
        heads: Sequence[dict[str, Any]],
        rows: Rows,
        compute: Callable[[RowPass], Rows | None],
    ) -> Rows | None:
        """Let the other machines do what ``heads`` say, and this one ``compute`` the same."""
        if self._local.layers.is_closed:
            raise ClosedError("the model was closed")
        mesh = self.meet()
        body = [memoryview(np.ascontiguousarray(rows)).cast("B")]
        with ExitStack() as asked, mesh.in_pass():
            answers = [
                asked.enter_context(peer.asking(head, body))
                for peer, head in zip(self.peers, heads, strict=True)
            ]
            for peer in self.peers:
                peer.wait_until_asked()
            local = RowPass(self._local.layers, mesh, self._columns, self._output)
            try:
                # that it ends says that all are through: nobody waits for their answers
                return compute(local)
            except LaneError as error:
                raise _reason(error, answers) from error

    def _is_whole(self) -> bool:
        return self._mesh is not None and self._mesh.is_whole

    def _close_local(self) -> None:
        self._leave()
        self._local.close()

    def _leave(self) -> None:
        if self._mesh is not None:
            self._mesh.close()
            self._mesh = None


def _reason(error: LaneError, answers: Sequence[Callable[[KeepGoing], Reply]]) -> EdgeLLMError:
    """Return why a pass has failed: what a machine says that does not blame another one."""
    reasons: list[EdgeLLMError] = []
    for answer in answers:
        try:
            answer(always)
        except EdgeLLMError as reason:
            reasons.append(reason)
    reasons.append(error)
    return next((reason for reason in reasons if not isinstance(reason, LaneError)), reasons[0])
