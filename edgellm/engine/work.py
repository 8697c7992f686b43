"""Tokens of some sequences on their way through the model, at once or in several steps."""

# N sequences that draw a token, V vocabulary

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import mlx.core as mx

from edgellm.device.model_lock import ModelLock
from edgellm.engine.scheduling.batched_forward import BatchedPass, SequenceInput
from edgellm.engine.scheduling.context import EngineContext
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.errors import ClosedError
from edgellm.models.layers import StagedLayers


class Work:
    """A pass of some sequences' next tokens; between two layers they may leave.

    Args:
        context: the model.
        scheduled: the sequences, and what goes through of each.

    Attributes:
        rows: tokens that go through.
        passes: how often the weights are passed over.
        prompt_tokens: those of the rows that belong to prompts.
    """

    def __init__(
        self, context: EngineContext, scheduled: Iterable[tuple[Sequence, SequenceInput]]
    ) -> None:
        self._context = context
        self._all = [(sequence, sequence.lease, new) for sequence, new in scheduled]
        self._keep_going = keep_going_for(context.model_lock, lambda: self.sequences)
        self._pass = BatchedPass(
            context.model,
            [new for _, _, new in self._all],
            prefill_chunk=context.plan.prefill_chunk,
        )
        self.rows: int = self._pass.rows
        self.passes: int = self._pass.passes
        self.prompt_tokens: int = sum(
            len(new.tokens) for one, _, new in self._all if not one.completion_tokens
        )

    @property
    def sequences(self) -> list[Sequence]:
        """Those that have neither ended nor given way since."""
        return [one for one, lease, _ in self._all if one.lease is lease and not one.has_ended]

    def has_any(self, sequences: Iterable[Sequence]) -> bool:
        """Return whether some of these sequences are in it, ended or not."""
        return not {one for one, _, _ in self._all}.isdisjoint(sequences)

    @property
    def is_done(self) -> bool:
        """Whether it has gone through all layers."""
        return not self._pass.layers_left

    @property
    def layers_left(self) -> int:
        """Layers that it has yet to go through."""
        return self._pass.layers_left

    def advance(self, layers: int | None = None) -> bool:
        """Go through the next ``layers`` layers, or all that are left; false where that was ended.

        It is ended where nobody wants it any more, or the model is closed. Then, and after a
        failure, the sequences go back to where they were before: some layers' caches hold the new
        tokens and others do not.

        Raises:
            ClosedError: the model was closed.
        """
        return self._going(partial(self._pass.advance, layers, keep_going=self._keep_going))

    def launch(self, layers: StagedLayers) -> None:
        """Begin to go through all layers; others may be launched before it lands."""
        try:
            self._pass.launch(layers, keep_going=self._keep_going)
        except BaseException:
            self.close()
            raise

    def land(self) -> bool:
        """Wait until what was launched is through; false, and errors, as ``advance`` has them."""
        return self._going(self._pass.land)

    def close(self) -> None:
        """End what was launched and has not landed."""
        self._pass.close()
        self._rewind()

    def _going(self, go: Callable[[], bool]) -> bool:
        lock = self._context.model_lock
        goes_on = False
        try:
            goes_on = go()
        finally:
            if not goes_on:
                self._rewind()
        if lock.closed:
            raise ClosedError("the model was closed during the answers")
        return goes_on

    def _rewind(self) -> None:
        for sequence in self.sequences:
            sequence.rewind()

    def finish(self) -> tuple[list[Sequence], mx.array]:
        """Note that the tokens are through; return who draws after them, and the logits (N, V)."""
        logits = self._pass.logits()
        here = self.sequences
        rows, drawing = [], []
        row = 0
        for sequence, _, new in self._all:
            if sequence in here:
                sequence.record_forward(
                    len(new.tokens), prefill_chunk=self._context.plan.prefill_chunk
                )
                if new.needs_logits:
                    rows.append(row)
                    drawing.append(sequence)
            row += new.needs_logits
        if len(rows) < len(logits):
            logits = logits[mx.array(rows, dtype=mx.int32)]
        return drawing, logits


def keep_going_for(
    lock: ModelLock, sequences: Callable[[], Iterable[Sequence]]
) -> Callable[[], bool]:
    """Return what says whether a pass goes on: the model is open, and somebody waits for it."""

    def keep_going() -> bool:
        if lock.closed:
            return False
        now = time.monotonic()
        return any(not (one.is_cancelled or one.deadline <= now) for one in sequences())

    return keep_going
