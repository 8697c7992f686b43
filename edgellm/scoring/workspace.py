"""A loaded model, as texts go through it after which nothing is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.engine.scheduling.batched_forward import SequenceInput, forward
from edgellm.engine.scheduling.context import EngineContext
from edgellm.errors import EdgeLLMError
from edgellm.kv_cache.cache import LayerCache, stored
from edgellm.models.layers import Span
from edgellm.sampling.token_scorer import HEAD_ROWS
from edgellm.scoring.trie import Ints

LOGITS_AT_ONCE = 1 << 22
"""Numbers: 17 MB, of which there are four copies for a moment."""

MIN_HEAD_ROWS = 17
"""Fewer rows are not faster on the CPU kernels."""

MAX_CHUNK = 512
"""Tokens of a trie that go through a layer at once; more are not faster."""

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

    @property
    def head_rows(self) -> int:
        """Rows that go through the output matrix at once."""
        return max(
            MIN_HEAD_ROWS, min(MAX_CHUNK, LOGITS_AT_ONCE // self.context.model.config.vocab_size)
        )

    @property
    def chunk(self) -> int:
        """Tokens of a trie that go through a layer at once."""
        return min(self.prefill_chunk, MAX_CHUNK)

    def tokens_at_once(self, depth: int) -> int:
        """Return how many tokens of a trie with paths of ``depth`` tokens make a wave.

        Where weights are streamed, their hidden states take what memory for KV caches is left, and
        as much again where the head takes them.
        """
        context = self.context
        if not context.model.layers.streams_weights:
            return self.chunk
        left = context.plan.kv_budget - depth * context.kv_bytes(1)
        config = context.model.config
        assert isinstance(config, ModelConfig), "only edgellm's own layers are streamed"
        state_bytes = 2 * 4 * config.hidden_size
        return max(self.chunk, min(STREAMED_TOKENS, left // state_bytes))

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

    def through_layers(
        self, tokens: Sequence[Ints], caches: Sequence[Sequence[LayerCache]]
    ) -> list[mx.array]:
        """Return the hidden states (L, E) of parts of a text after all layers, as of many tokens.

        Where weights are streamed, they are read once for all parts.

        Args:
            tokens: ids (L,) of each part, at most ``chunk`` of them.
            caches: of each part, one per layer.

        Raises:
            EdgeLLMError: it was cancelled.
        """
        model = self.context.model
        ids = [mx.array(part.astype(np.int32))[None] for part in tokens]
        spans = [
            [Span(own, len(part), many=True)] for part, own in zip(tokens, caches, strict=True)
        ]
        states = model.hidden_ragged(ids, spans, keep_going=self.keep_going)
        self.require_whole(states)
        mx.eval(*states, *stored(cache for own in caches for cache in own))
        self.counts.layer_tokens += sum(map(len, tokens))
        self.counts.passes += 1
        if not model.layers.streams_weights:
            self.counts.passes += len(tokens) - 1
        return [state[0] for state in states]

    def head(self, hidden: mx.array) -> mx.array:
        """Return the logits (R, V) of hidden states (R, E), computed as of many tokens."""
        self.counts.head_rows += len(hidden)
        return self.context.model.logits(hidden, many=True)

    def require_whole(self, result: object) -> None:
        """Raise EdgeLLMError where a pass has no result: it was cancelled, or the model closed."""
        if result is None or result == []:
            self.context.model_lock.require_open()
            raise cancelled()


def cancelled() -> EdgeLLMError:
    """Return the error of what was cancelled."""
    return EdgeLLMError("this was cancelled before it ended", hint="ask for it again")
