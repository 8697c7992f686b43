"""Tokens go through layers of which each machine has rows; all gather what each has made."""

# L new tokens, E hidden

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.distributed.links.mesh import Mesh
from edgellm.distributed.parts.rows import RowLayers, RowShare
from edgellm.kernels.exchange.gather import Bounds, Gather
from edgellm.models.cpu.block import calls_of
from edgellm.models.cpu.row_block import AttentionOfLayers, RowBlock, Rows, Stage
from edgellm.models.layers import KeepGoing, Span, StateSpans

Columns = Mapping[Stage, Sequence[Bounds]]
"""Of what each stage makes, the columns of each machine."""


def gathered_columns(config: ModelConfig, shares: Sequence[RowShare]) -> Columns:
    """Return which columns each machine has of what the stages make."""
    per_head = config.head_dim * config.num_attention_heads // config.num_key_value_heads
    return {
        "attend": [
            (per_head * share.kv_heads[0], per_head * share.kv_heads[1]) for share in shares
        ],
        "output": [share.attended for share in shares],
        "gate": [share.inner for share in shares],
        "down": [share.hidden for share in shares],
    }


@dataclass(frozen=True, slots=True)
class RowPass:
    """A machine's part of passes, which all machines do at once, step by step.

    Attributes:
        layers: of which the rows are here.
        mesh: the way to the other machines.
        columns: which of them have what.
        output: rows of the output matrix on each of them; None: the first one has all.
    """

    layers: RowLayers
    mesh: Mesh
    columns: Columns
    output: Sequence[Bounds] | None = None

    def run(
        self,
        rows: Rows,
        spans: StateSpans,
        *,
        keep_going: KeepGoing,
        depth: int | None = None,
        wants_logits: bool = False,
    ) -> Rows | None:
        """Return hidden states (L, E) after the layers, the same on all machines.

        Each layer takes all states before the next one does. None where ``keep_going`` said no;
        that of the first machine alone is asked, between layers.

        Args:
            rows: (L, E), all states side by side, the same on all machines.
            spans: whose tokens each state's are, with the caches here.
            keep_going, depth: as ``Layers.run`` has them.
            wants_logits: whether to go on, and return what ``logits`` does.

        Raises:
            LaneError: a machine is gone.
            ReadError: a layer cannot be read.
        """
        calls = [call for state_spans in spans for call in calls_of(state_spans)]
        ends = np.cumsum([sum(span.length for span in call) for call in calls])
        hiddens = np.split(rows, ends[:-1])
        with self.mesh.in_pass(), self.layers.engine.lock:
            # what a call attends to in a layer is there when those before it are through
            attention = None
            if len(calls) == 1 and depth is None:
                attention = self.layers.prepare(calls[0])
            self.mesh.prepare(max(map(len, hiddens)), self.columns.values())
            last = len(range(self.layers.count)[:depth]) - 1, len(calls) - 1
            for number, block in self.layers.through(depth):
                if not keep_going():
                    if self.mesh.finish():
                        self.mesh.stop(len(hiddens[0]), self.columns["attend"])
                    return None
                for place, call in enumerate(calls):
                    if number == 0 or len(calls) > 1:
                        self._begin(block, hiddens[place], call)
                    ends_pass = (number, place) == last and not wants_logits
                    if not self._through(number, block, call, attention, ends_pass=ends_pass):
                        return None  # the first machine has stopped
                    if number == last[0] or len(calls) > 1:
                        if not self.mesh.finish():
                            return None
                        hiddens[place] = block.hidden(len(hiddens[place])).copy()
            if wants_logits:
                return self.logits(np.concatenate(hiddens))
            columns = self.columns["down"]
            own = hiddens[-1][:, slice(*columns[self.mesh.place])]
            hiddens[-1] = self.mesh.end(own, columns)
            return np.concatenate(hiddens)

    def logits(self, hidden: Rows) -> Rows:
        """Return the logits (L, V) of hidden states (L, E), here and elsewhere, on the first one.

        On the others, those of their own tokens (L, own). Raises LaneError.
        """
        head = self.layers.head
        assert head is not None, "rows of the output matrix were loaded"
        assert self.output is not None, "on all machines"
        with self.mesh.in_pass():
            return self.mesh.end(head.rows(hidden), self.output, on_all=False)

    def _begin(self, block: RowBlock, hidden: Rows, spans: Sequence[Span]) -> None:
        """Put hidden states (L, E) of a call where its stages read them."""
        block.reserve(len(hidden), many=spans[0].many)
        block.hidden(len(hidden))[:] = hidden

    def _through(
        self,
        number: int,
        block: RowBlock,
        spans: Sequence[Span],
        attention: AttentionOfLayers | None,
        *,
        ends_pass: bool,
    ) -> bool:
        """Send a call through a layer, and begin its last gather; false where it was stopped.

        Where it ends the pass the last gather is left to that.
        """
        tokens, engine = sum(span.length for span in spans), self.layers.engine
        for stage in block.stages:
            steps, memories = block.steps(stage, spans, number, attention=attention)
            gather = Gather(*block.made(stage), self.columns[stage])
            run, ahead = engine.ready(steps, tokens), block.ahead(stage)
            if ends_pass and stage == "down":
                return self.mesh.finish(run, ahead)
            if not self.mesh.relay(gather, tokens, run, ahead):
                return False
            for memory in memories:
                memory.keep()
        return True
