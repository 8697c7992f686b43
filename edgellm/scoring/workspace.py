"""A loaded model, as texts go through it after which nothing is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from edgellm.engine.scheduling.batched_forward import SequenceInput, forward
from edgellm.engine.scheduling.context import EngineContext
from edgellm.errors import EdgeLLMError
from edgellm.sampling.token_scorer import HEAD_ROWS

STREAMED_TOKENS = 8192
"""Of a wave where weights are streamed: hidden states of all of them are held, 67 MB with 4,096
numbers of 16 bits each."""


@dataclass(slots=True)
class Counts:
    """The work so far.

    Attributes:
        layer_tokens: tokens that went through the layers.
        head_rows: hidden states that went through the output matrix.
        passes: over the weights.
    """

    layer_tokens: int = 0
    head_rows: int = 0
    passes: int = 0


@dataclass(frozen=True, slots=True)
class Workspace:
    """The model, and how much goes through it together.

    Attributes:
        context: the model.
        keep_going: asked between layers; false ends the work.
        counts: the work so far.
    """

    context: EngineContext
    keep_going: Callable[[], bool]
    counts: Counts = field(default_factory=Counts)

    @property
    def prefill_chunk(self) -> int:
        """Tokens that go through a layer at once; few of a whole model, whose states are logits."""
        if self.context.model.whole:
            return min(HEAD_ROWS, self.context.plan.prefill_chunk)
        return self.context.plan.prefill_chunk

    @property
    def wave_tokens(self) -> int:
        """Tokens of all sequences that go through the model together."""
        if self.context.model.layers.streams_weights:
            return STREAMED_TOKENS
        return self.prefill_chunk

    def forward(self, inputs: Sequence[SequenceInput]) -> None:
        """Send sequences through the model. Raises EdgeLLMError where they were cancelled."""
        logits, passes = forward(
            self.context.model,
            inputs,
            prefill_chunk=self.prefill_chunk,
            keep_going=self.keep_going,
        )
        self.require_whole(logits)
        self.counts.layer_tokens += sum(len(new.tokens) for new in inputs)
        self.counts.passes += passes

    def head(self, hidden: mx.array) -> mx.array:
        """Return the logits (R, V) of hidden states (R, E) after all layers."""
        self.counts.head_rows += len(hidden)
        return self.context.model.logits(hidden)

    def require_whole(self, result: object) -> None:
        """Raise EdgeLLMError where a pass has no result: it was cancelled, or the model closed."""
        if result is None or result == []:
            self.context.model_lock.require_open()
            raise cancelled()


def cancelled() -> EdgeLLMError:
    """Return the error of what was cancelled."""
    return EdgeLLMError("this was cancelled before it ended", hint="ask for it again")
