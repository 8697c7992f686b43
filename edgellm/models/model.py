"""The whole model: embedding, decoder layers, final norm and output matrix."""

# B batch, L new tokens, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.model_config import CommonConfig
from edgellm.kv_cache.cache import Cache
from edgellm.models.layers import KeepGoing, Layers, Span, always
from edgellm.models.linear import DenseLinear, Linear, QuantizedLinear


class Embedding(Protocol):
    """The token embedding."""

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of token ids (B, L)."""
        ...

    def close(self) -> None:
        """Close the files that it reads from, if any."""
        ...


class ResidentEmbedding:
    """An embedding (V, E) in memory, dense or quantized."""

    def __init__(self, weight: DenseLinear | QuantizedLinear, dtype: mx.Dtype) -> None:
        self.weight = weight
        self.dtype = dtype

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of token ids (B, L)."""
        return self.weight.rows_at(tokens, self.dtype)

    def close(self) -> None:
        """Do nothing: there are no files."""


class WholePass(Protocol):
    """Passes of a few tokens through a whole model at once."""

    def logits(
        self, ids: Sequence[int], spans: Sequence[Span], *, keep_going: KeepGoing
    ) -> mx.array | None:
        """Return the logits (L, V) after each of L tokens; None where ``keep_going`` said no."""
        ...


class Model:
    """Embedding, layers, final norm and output matrix.

    Args:
        config: the model's numbers.
        embed_tokens: the token embedding.
        layers: the decoder layers.
        norm: of (..., E), before the output matrix.
        head: the product of normed states (..., E) with the output matrix (V, E), norm included.
        embedding_scale: what embeddings are multiplied by before the first layer.
        whole: whether what stands for the layers is a whole model: its states are logits, and it
            takes one sequence at a time.
        logit_cap: the soft cap of logits; None: there is none.
        whole_pass: takes a few tokens from ids to logits; None where each part is called by itself.
    """

    def __init__(
        self,
        config: CommonConfig,
        *,
        embed_tokens: Embedding,
        layers: Layers,
        norm: Callable[[mx.array], mx.array],
        head: Linear,
        embedding_scale: float = 1.0,
        whole: bool = False,
        logit_cap: float | None = None,
        whole_pass: WholePass | None = None,
    ) -> None:
        self.config = config
        self.embed_tokens = embed_tokens
        self.layers = layers
        self.norm = norm
        self.head = head
        self.embedding_scale = embedding_scale
        self.whole = whole
        self.logit_cap = logit_cap
        self.whole_pass = whole_pass

    def close(self) -> None:
        """Free the layers' weights, and close files."""
        self.layers.close()
        self.embed_tokens.close()

    def is_many(self, prompt_tokens: int) -> bool:
        """Return whether a prompt of this many tokens, wherever it is cut, is computed as many."""
        return prompt_tokens > self.layers.max_exact_rows

    def cut(self, tokens: Sequence[int], size: int) -> list[Sequence[int]]:
        """Return a prompt's tokens in chunks of up to ``size``, as they are best sent through.

        Of a whole model the last token goes alone: nobody needs the logits of those before it, and
        in a chunk with it they would be computed.
        """
        end = len(tokens) - self.whole
        chunks = [tokens[begin : min(begin + size, end)] for begin in range(0, end, size)]
        if self.whole:
            chunks.append(tokens[end:])
        return chunks

    def hidden(
        self,
        tokens: Sequence[mx.array],
        caches: Sequence[Sequence[Cache]],
        *,
        many: bool = False,
        keep_going: Callable[[], bool] = always,
        depth: int | None = None,
        levels: Sequence[int] = (),
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; empty where ``keep_going`` said no.

        Args:
            tokens: ids (1, L), each of one sequence.
            caches: the KV caches of those sequences, one per layer.
            many, levels: as ``Span`` has them.
            keep_going, depth: as ``Layers.run`` has them.
        """
        spans = [
            [Span(sequence_caches, ids.shape[1], many, levels)]
            for ids, sequence_caches in zip(tokens, caches, strict=True)
        ]
        return self.hidden_ragged(tokens, spans, keep_going=keep_going, depth=depth)

    def hidden_ragged(
        self,
        tokens: Sequence[mx.array],
        spans: Sequence[Sequence[Span]],
        *,
        keep_going: Callable[[], bool] = always,
        depth: int | None = None,
    ) -> list[mx.array]:
        """Return what ``hidden`` does; ids (1, L) may be of several sequences side by side."""
        # not in a list, which would hold a prompt's embeddings until all layers are through
        states = (self.embed(ids) for ids in tokens)
        return self.layers.run(states, spans, keep_going=keep_going, depth=depth)

    def step(
        self,
        tokens: mx.array | list[int],
        spans: Sequence[Span],
        *,
        keep_going: KeepGoing = always,
    ) -> mx.array | None:
        """Return the logits (L, V) after each of L tokens, which are few and not ``many``.

        None where ``keep_going`` said no.

        Args:
            tokens: ids (L,) of one sequence or of several side by side.
            spans: whose they are.
            keep_going: as ``Layers.run`` has it.
        """
        if self.whole_pass is not None:
            return self.whole_pass.logits(np.array(tokens).tolist(), spans, keep_going=keep_going)
        states = self.hidden_ragged([mx.array(tokens)[None]], [spans], keep_going=keep_going)
        if not states:
            return None
        return self.logits(states[0][0])

    def embed(self, tokens: mx.array) -> mx.array:
        """Return the hidden states (B, L, E) of token ids (B, L) before the first layer."""
        states = self.embed_tokens(tokens)
        # LLaMA's scale is 1: not even a multiplication is launched
        if self.embedding_scale != 1.0:
            states = states * self.embedding_scale
        return states

    def logits(self, hidden: mx.array, *, many: bool = False) -> mx.array:
        """Return the logits (N, V) of hidden states (N, E), each as it would be alone.

        With ``many``, each is as it would be among many, however few they are: that is faster
        where there are many.
        """
        count, exact_rows = hidden.shape[0], self.layers.max_exact_rows
        if many and exact_rows:
            if count <= exact_rows:
                hidden = mx.pad(hidden, [(0, exact_rows + 1 - count), (0, 0)])
            return self._capped(self.head(hidden))[:count]
        at_once = exact_rows or count
        parts = [
            self._capped(self.head(hidden[begin : begin + at_once]))
            for begin in range(0, len(hidden), at_once)
        ]
        if len(parts) == 1:
            return parts[0]
        return mx.concatenate(parts)

    def _capped(self, logits: mx.array) -> mx.array:
        if self.logit_cap is None:
            return logits
        return self.logit_cap * mx.tanh(logits / self.logit_cap)

    def __call__(self, tokens: mx.array, caches: Sequence[Cache]) -> mx.array:
        """Return the logits (1, L, V) of one sequence's token ids (1, L)."""
        return self.logits(self.hidden([tokens], [caches])[0][0])[None]
