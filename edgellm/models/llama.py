"""LLaMA in MLX: the decoder block, and the model that stacks it. Attributes carry the checkpoint's names."""

# B batch, L new tokens, S tokens that are looked at, E hidden, V vocabulary, H query heads, G
# key/value heads, D head size

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import ClosedError
from edgellm.kv_cache.cache import Cache
from edgellm.kv_cache.kv_format import attention
from edgellm.models.linear import (
    DenseLinear,
    Linear,
    QuantizationOf,
    QuantizedLinear,
    Tensors,
    stacked_linear,
)
from edgellm.models.rope import wavelengths

Rows = Sequence[tuple[Cache, int]]
"""Whose the rows of a state are: the cache of each sequence in a layer, and how many rows it has, in their order."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of one sequence, which lie side by side in a state: its caches, one a layer, and how many rows."""

    caches: Sequence[Cache]
    length: int


def always() -> bool:
    """Return true: nobody wants to leave half-way."""
    return True


class Layer(Protocol):
    """One decoder layer."""

    max_exact_rows: int
    """Products of up to so many rows take another way than those of more; on either, a row gets what it gets alone."""

    def __call__(self, hidden: mx.array, rows: Rows) -> mx.array:
        """Return the hidden states (1, L, E) of one or more sequences after this layer, and store their keys and values."""
        ...


class Layers(Protocol):
    """The decoder layers, wherever they live."""

    streams_weights: bool
    """Whether a pass over the layers costs reads, so that all chunks of a prompt should go through a layer together."""

    async_compute: bool
    """Whether ``run`` returns before the arithmetic is done, so that the next step can be launched ahead."""

    max_exact_rows: int
    """As ``Layer`` has it."""

    def run(
        self,
        states: Sequence[mx.array],
        spans: Sequence[Sequence[Span]],
        *,
        keep_going: Callable[[], bool] = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers; an empty list where ``keep_going`` said no.

        Args:
            states: hidden states to be sent through; chunks of prompts, or steps of several
                sequences side by side.
            spans: whose the rows of each state are. A sequence has one span in a state at the most.
            keep_going: asked between layers, or between states; once it says no, caches are left as
                they are, half-way.
        """
        ...

    def close(self) -> None:
        """Free what the layers hold."""
        ...


def gated(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``."""
    return gate * mx.sigmoid(gate) * up


class _Compiled(threading.local):
    """A compiled function for each thread.

    MLX frees a thread's compiled functions after Python has let the thread go, and aborts the
    process if that ends just then; what is a thread's own is freed before.
    """

    def __init__(self) -> None:
        self.gated = mx.compile(gated, shapeless=True)


_compiled = _Compiled()


def fused_gated(gate: mx.array, up: mx.array) -> mx.array:
    """``gated`` in one kernel on a GPU. On a CPU compiling would call a C++ compiler, so the plain form runs there."""
    result: mx.array = _compiled.gated(gate, up)
    return result


class Attention:
    """Self-attention with grouped heads; the product of queries, keys and values is one."""

    def __init__(
        self, config: ModelConfig, tensors: Tensors, quantization_of: QuantizationOf
    ) -> None:
        self.num_heads, self.num_key_value_heads = (
            config.num_attention_heads,
            config.num_key_value_heads,
        )
        self.head_dim, self.eps = config.head_dim, config.rms_norm_eps
        self.qkv_proj = stacked_linear(tensors, "self_attn.qkv_proj", quantization_of)
        self.o_proj = stacked_linear(tensors, "self_attn.o_proj", quantization_of)
        self.q_norm, self.k_norm = (
            tensors.get("self_attn.q_norm.weight"),
            tensors.get("self_attn.k_norm.weight"),
        )
        self.wavelengths = mx.array(
            wavelengths(config.head_dim, config.rope_theta, config.rope_scaling)
        )
        mx.eval(self.wavelengths)

    def __call__(self, x: mx.array, rows: Rows) -> mx.array:
        """Return what attention adds to (1, L, E)."""
        heads = self.qkv_proj(x)
        # the same bytes: no transposition, and after attention no copy
        if all(length == 1 for _, length in rows):
            heads = heads.reshape(len(rows), -1, 1, self.head_dim)
            offsets = [cache.offset for cache, _ in rows]
            turned = self._rotate(heads, mx.array(offsets) if len(rows) > 1 else offsets[0])
            seen = [
                self._look(turned[place : place + 1], heads[place : place + 1], cache)
                for place, (cache, _) in enumerate(rows)
            ]
        else:
            heads = heads.reshape(1, x.shape[1], -1, self.head_dim).swapaxes(1, 2)
            seen, begin = [], 0
            for cache, length in rows:
                own = heads[:, :, begin : begin + length]
                seen.append(self._look(self._rotate(own, cache.offset), own, cache).swapaxes(1, 2))
                begin += length
        parts = [part.reshape(1, -1, self.num_heads * self.head_dim) for part in seen]
        return self.o_proj(parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1))

    def _look(self, turned: mx.array, heads: mx.array, cache: Cache) -> mx.array:
        """What the queries of one sequence see (1, H, L, D); its keys and values go into its cache."""
        queries, keys = self.num_heads, self.num_key_value_heads
        all_keys, all_values, mask = cache.update(turned[:, queries:], heads[:, queries + keys :])
        return attention(
            turned[:, :queries], all_keys, all_values, scale=self.head_dim**-0.5, mask=mask
        )

    def _rotate(self, heads: mx.array, offset: int | mx.array) -> mx.array:
        """Queries and keys (B, H + G, L, D) of these heads, turned by their positions."""
        heads = heads[:, : self.num_heads + self.num_key_value_heads]
        if self.q_norm is not None and self.k_norm is not None:
            query = mx.fast.rms_norm(heads[:, : self.num_heads], self.q_norm, self.eps)
            key = mx.fast.rms_norm(heads[:, self.num_heads :], self.k_norm, self.eps)
            heads = mx.concatenate([query, key], axis=1)
        return mx.fast.rope(
            heads,
            self.head_dim,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self.wavelengths,
        )


class MLP:
    """The gated feed-forward part; the product of gate and up is one."""

    def __init__(self, tensors: Tensors, quantization_of: QuantizationOf, *, fused: bool) -> None:
        self.gate_up_proj = stacked_linear(tensors, "mlp.gate_up_proj", quantization_of)
        self.down_proj = stacked_linear(tensors, "mlp.down_proj", quantization_of)
        self.gated = fused_gated if fused else gated

    def __call__(self, x: mx.array) -> mx.array:
        """Return what the feed-forward part adds to (B, L, E)."""
        return self.down_proj(self.gated(*mx.split(self.gate_up_proj(x), 2, axis=-1)))


class Block:
    """One decoder layer over tensors named as inside the layer (``self_attn.q_proj.weight``)."""

    max_exact_rows = 0

    def __init__(
        self,
        config: ModelConfig,
        tensors: Tensors,
        quantization_of: QuantizationOf,
        *,
        fused: bool = False,
    ) -> None:
        self.eps = config.rms_norm_eps
        self.input_layernorm = tensors["input_layernorm.weight"]
        self.self_attn = Attention(config, tensors, quantization_of)
        self.post_attention_layernorm = tensors["post_attention_layernorm.weight"]
        self.mlp = MLP(tensors, quantization_of, fused=fused)

    def __call__(self, hidden: mx.array, rows: Rows) -> mx.array:
        """Return the hidden states (1, L, E) after this layer."""
        hidden = hidden + self.self_attn(
            mx.fast.rms_norm(hidden, self.input_layernorm, self.eps), rows
        )
        return hidden + self.mlp(mx.fast.rms_norm(hidden, self.post_attention_layernorm, self.eps))


def rows_of(spans: Sequence[Span], layer: int) -> Rows:
    """The rows of a state as one layer sees them."""
    return [(span.caches[layer], span.length) for span in spans]


class ResidentLayers:
    """Layers whose weights are all in memory."""

    streams_weights = False

    def __init__(self, layers: Sequence[Layer], *, async_compute: bool = True) -> None:
        self._layers = list(layers)
        self.max_exact_rows = max((layer.max_exact_rows for layer in layers), default=0)
        self.async_compute = async_compute
        self._closed = False

    def run(
        self,
        states: Sequence[mx.array],
        spans: Sequence[Sequence[Span]],
        *,
        keep_going: Callable[[], bool] = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers, or nothing where ``keep_going`` said no. Raises ClosedError."""
        if self._closed:
            raise ClosedError("the model was closed")
        moved = list(states)
        for index, layer in enumerate(self._layers):
            if not keep_going():
                return []
            moved = [
                layer(hidden, rows_of(own, index)) for hidden, own in zip(moved, spans, strict=True)
            ]
        return moved

    def close(self) -> None:
        """Let the weights go."""
        self._closed = True
        self._layers.clear()


class Embedding(Protocol):
    """The table of token embeddings."""

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of tokens (B, L)."""
        ...


class ResidentEmbedding:
    """A table in memory, of numbers (V, E) or of quantized codes."""

    def __init__(self, table: DenseLinear | QuantizedLinear, dtype: mx.Dtype) -> None:
        self.table, self.dtype = table, dtype

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of tokens (B, L)."""
        if isinstance(self.table, QuantizedLinear):
            return self.table.dequantized(tokens, self.dtype)
        return self.table.weight[tokens].astype(self.dtype)


class Model:
    """Embedding, layers, norm and head."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        embed_tokens: Embedding,
        layers: Layers,
        norm: mx.array,
        lm_head: Linear,
    ) -> None:
        self.config = config
        self.embed_tokens, self.layers, self.norm, self.lm_head = (
            embed_tokens,
            layers,
            norm,
            lm_head,
        )

    def hidden(
        self,
        tokens: Sequence[mx.array],
        caches: Sequence[Sequence[Cache]],
        *,
        keep_going: Callable[[], bool] = always,
    ) -> list[mx.array]:
        """Return hidden states (1, L, E) after all layers, of tokens (1, L) with the caches of their sequences.

        The list is empty where ``keep_going`` said no between two layers; the caches are then left
        half-way.
        """
        spans = [[Span(own, ids.shape[1])] for ids, own in zip(tokens, caches, strict=True)]
        return self.hidden_ragged(tokens, spans, keep_going=keep_going)

    def hidden_ragged(
        self,
        tokens: Sequence[mx.array],
        spans: Sequence[Sequence[Span]],
        *,
        keep_going: Callable[[], bool] = always,
    ) -> list[mx.array]:
        """As ``hidden``, where the tokens (1, L) of a state may be those of several sequences, side by side."""
        return self.layers.run(
            [self.embed_tokens(ids) for ids in tokens], spans, keep_going=keep_going
        )

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the logits (..., V) of hidden states (..., E)."""
        return self.lm_head(mx.fast.rms_norm(hidden, self.norm, self.config.rms_norm_eps))

    def __call__(self, tokens: mx.array, caches: Sequence[Cache]) -> mx.array:
        """Return the logits (B, L, V) of tokens (B, L)."""
        return self.logits(self.hidden([tokens], [caches])[0])
