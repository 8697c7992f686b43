"""LLaMA's decoder block in MLX, from which other families derive theirs.

Attributes carry the checkpoint's names. A family whose block differs subclasses ``Block`` in a file
of its own and overrides what differs: ``norm``, ``gate``, ``attention_scale``, ``embedding_scale``,
its ``attention``, or ``read_norms`` and ``__call__``.
"""

# B sequences of one token each, L new tokens, E hidden, F inner, H query heads, G key/value heads,
# D head size, R features of a head that are rotated

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx

from edgellm.checkpoint.family_configs import FAMILIES
from edgellm.checkpoint.layer_config import LayerConfig
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.kv_cache.cache import KVCache, LayerCache
from edgellm.kv_cache.kv_format import attention
from edgellm.kv_cache.path_cache import PathCache
from edgellm.models.layers import LayerChange, LayerSpans
from edgellm.models.linear import (
    AddedProduct,
    Linear,
    QuantizationOf,
    Tensors,
    changed_linear,
    stacked_linear,
)
from edgellm.models.rope import wavelengths

Norm = Callable[[mx.array], mx.array]
"""Normalizes the last axis."""

Gate = Callable[[mx.array, mx.array], mx.array]
"""Makes one array of the products gate and up, both (..., F)."""


class RMSNorm:
    """``x / rms(x) * weight`` along the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, weight: mx.array, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x`` normalized."""
        return mx.fast.rms_norm(x, self.weight, self.eps)


def silu_gate(gate: mx.array, up: mx.array) -> mx.array:
    """Return ``silu(gate) * up`` (SwiGLU: Shazeer 2020, arXiv:2002.05202)."""
    return gate * mx.sigmoid(gate) * up


class _CompiledGates(threading.local):
    """Compiled gates of one thread.

    MLX frees a thread's compiled functions after Python has let the thread go, and aborts the
    process if that ends just then; what is a thread's own is freed before.
    """

    def __init__(self) -> None:
        self.by_gate: dict[Gate, Gate] = {}


_compiled_gates = _CompiledGates()


def compiled(gate: Gate) -> Gate:
    """Return a gate as one kernel, for a GPU: on a CPU, MLX would call a C++ compiler."""

    def run(gate_states: mx.array, up_states: mx.array) -> mx.array:
        gates = _compiled_gates.by_gate
        if gate not in gates:
            gates[gate] = mx.compile(gate, shapeless=True)
        return gates[gate](gate_states, up_states)

    return run


class Attention:
    """Self-attention with grouped heads; queries, keys and values come of one product.

    Args:
        config: the model's numbers.
        layer: what is the layer's own.
        tensors: of the layer, by their names inside it.
        quantization_of: how each matrix is stored.
        norm: makes the norms of query and key heads, where the layer has them.
        scale: what scores are multiplied by.
    """

    def __init__(
        self,
        config: ModelConfig,
        layer: LayerConfig,
        tensors: Tensors,
        quantization_of: QuantizationOf,
        *,
        norm: Callable[[mx.array, ModelConfig], Norm],
        scale: float,
    ) -> None:
        self.num_heads: int = config.num_attention_heads
        self.num_key_value_heads: int = config.num_key_value_heads
        self.head_dim: int = config.head_dim
        self.scale = scale
        self.cap: float | None = config.attn_logit_softcapping
        self.attention = attention  # a converter that differentiates puts another one here
        self.qkv_proj: Linear = stacked_linear(tensors, "self_attn.qkv_proj", quantization_of)
        self.o_proj: Linear = stacked_linear(tensors, "self_attn.o_proj", quantization_of)
        self.q_norm: Norm | None = None
        self.k_norm: Norm | None = None
        if config.query_key_norm is not None:
            self.q_norm = norm(tensors[f"{config.query_key_norm.query}.weight"], config)
            self.k_norm = norm(tensors[f"{config.query_key_norm.key}.weight"], config)
        rotary = layer.rotary
        # positions per radian of each pair of features, (R / 2,)
        self.wavelengths: mx.array | None = None
        # what the rotated features alone are multiplied by, (D,); None: all of them, by the scale
        self.rotary_factors: mx.array | None = None
        if rotary is not None:
            self.rotary_dim: int = rotary.dim
            self.wavelengths = mx.array(wavelengths(rotary.dim, rotary.theta, rotary.scaling))
            mx.eval(self.wavelengths)
            if rotary.dim != config.head_dim and rotary.attention_factor != 1.0:
                rotated = mx.arange(config.head_dim) < rotary.dim
                self.rotary_factors = mx.where(rotated, rotary.attention_factor, 1.0)
                mx.eval(self.rotary_factors)

    def __call__(self, x: mx.array, spans: LayerSpans) -> mx.array:
        """Return attention's part (1, L, E) for normalized states (1, L, E)."""
        # (1, L, E) -> (1, L, (H + 2G)*D): queries, keys and values of a token side by side
        heads = self.project(x)
        if all(length == 1 and isinstance(cache, KVCache) for cache, length in spans):
            attended = self._attend_steps(heads, spans)
        else:
            attended = self._attend_ragged(heads, spans)
        # of each sequence: (1, L, H*D)
        parts = [part.reshape(1, -1, self.num_heads * self.head_dim) for part in attended]
        if len(parts) > 1:
            return self.o_proj(mx.concatenate(parts, axis=1))
        return self.o_proj(parts[0])

    def project(self, x: mx.array) -> mx.array:
        """Return queries, keys and values (1, L, (H + 2G)*D) of normalized states (1, L, E)."""
        return self.qkv_proj(x)

    def positioned(self, heads: mx.array, offset: int | mx.array) -> mx.array:
        """Return queries and keys (B, H + G, L, D) normalized, and turned by their position."""
        return self.rotate(self.normalize(heads), offset)

    def normalize(self, heads: mx.array) -> mx.array:
        """Return queries and keys (B, H + G, L, D), each head normalized where there are norms."""
        if self.q_norm is None or self.k_norm is None:
            return heads
        queries = self.q_norm(heads[:, : self.num_heads])
        keys = self.k_norm(heads[:, self.num_heads :])
        return mx.concatenate([queries, keys], axis=1)

    def rotate(self, heads: mx.array, offset: int | mx.array) -> mx.array:
        """Return queries and keys (B, H + G, L, D) turned by their position."""
        if self.wavelengths is None:
            return heads
        if self.rotary_factors is not None:
            heads = heads * self.rotary_factors.astype(heads.dtype)
        return mx.fast.rope(
            heads,
            self.rotary_dim,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self.wavelengths,
        )

    def _attend_steps(self, heads: mx.array, spans: LayerSpans) -> list[mx.array]:
        """Return (1, H, 1, D) of each sequence; each has one new token."""
        # (1, B, (H + 2G)*D) -> (B, H + 2G, 1, D): the same bytes, so nothing is transposed before
        # attention or copied after it
        heads = heads.reshape(len(spans), -1, 1, self.head_dim)
        offset: int | mx.array = spans[0][0].offset
        if len(spans) > 1:
            offset = mx.array([cache.offset for cache, _ in spans])
        # one launch turns the heads of all sequences
        rotated = self.positioned(heads[:, : self.num_heads + self.num_key_value_heads], offset)
        return [
            self._attend(rotated[place : place + 1], heads[place : place + 1], cache)
            for place, (cache, _) in enumerate(spans)
        ]

    def _attend_ragged(self, heads: mx.array, spans: LayerSpans) -> list[mx.array]:
        """Return (1, L, H, D) of each sequence, which have any number of new tokens."""
        # (1, L, (H + 2G)*D) -> (1, H + 2G, L, D)
        heads = heads.reshape(1, heads.shape[1], -1, self.head_dim).swapaxes(1, 2)
        attended = []
        begin = 0
        for cache, length in spans:
            own_heads = heads[:, :, begin : begin + length]
            first_value = self.num_heads + self.num_key_value_heads
            rotated = self._positioned_in(cache, own_heads[:, :first_value])
            # (1, H, L, D) -> (1, L, H, D)
            attended.append(self._attend(rotated, own_heads, cache).swapaxes(1, 2))
            begin += length
        return attended

    def _positioned_in(self, cache: LayerCache, heads: mx.array) -> mx.array:
        """Return queries and keys (1, H + G, L, D) of a cache's new tokens by their positions."""
        if not isinstance(cache, PathCache):
            return self.positioned(heads, cache.offset)
        # (L, H + G, 1, D): as sequences of one token each
        by_token = self.positioned(heads.transpose(2, 1, 0, 3), mx.array(cache.positions))
        return by_token.transpose(2, 1, 0, 3)

    def _attend(self, rotated: mx.array, heads: mx.array, cache: LayerCache) -> mx.array:
        """Store one sequence's keys and values; return what its queries attend to, (1, H, L, D).

        Args:
            rotated: queries and keys (1, H + G, L, D), by position.
            heads: queries, keys and values (1, H + 2G, L, D), as they were multiplied.
            cache: of the sequence in this layer.
        """
        first_value = self.num_heads + self.num_key_value_heads
        queries, new_keys = rotated[:, : self.num_heads], rotated[:, self.num_heads :]
        assert isinstance(cache, KVCache | PathCache), "the loader makes this kind for its layers"
        keys, values, mask = cache.update(new_keys, heads[:, first_value:])
        return self.attention(queries, keys, values, scale=self.scale, mask=mask, cap=self.cap)


class MLP:
    """The gated feed-forward part; gate and up come of one product."""

    def __init__(self, tensors: Tensors, quantization_of: QuantizationOf, *, gate: Gate) -> None:
        self.gate_up_proj: Linear = stacked_linear(tensors, "mlp.gate_up_proj", quantization_of)
        self.down_proj: Linear = stacked_linear(tensors, "mlp.down_proj", quantization_of)
        self.gate = gate

    def __call__(self, x: mx.array) -> mx.array:
        """Return the feed-forward part (1, L, E) for normalized states (1, L, E)."""
        # (1, L, 2F) -> twice (1, L, F)
        gate, up = mx.split(self.gate_up_proj(x), 2, axis=-1)
        return self.down_proj(self.gate(gate, up))


class Block:
    """One decoder layer over tensors named as inside the layer (``self_attn.q_proj.weight``).

    Args:
        config: the model's numbers.
        layer: what is the layer's own.
        tensors: the layer's, and stacks that lie as one matrix.
        quantization_of: how each matrix is stored.
        fused: whether the gate is compiled into one kernel, which only a GPU gains by.
    """

    max_exact_rows = 0

    attention: type[Attention] = Attention

    @staticmethod
    def gate(gate: mx.array, up: mx.array) -> mx.array:
        """Return what the feed-forward part makes of gate and up, both (..., F)."""
        return silu_gate(gate, up)

    @classmethod
    def norm(cls, weight: mx.array, config: ModelConfig) -> Norm:
        """Return the norm with this weight; the final norm before the output matrix is one, too."""
        return RMSNorm(weight, config.rms_norm_eps)

    @classmethod
    def attention_scale(cls, config: ModelConfig, layer: LayerConfig) -> float:
        """Return what the scores of attention are multiplied by."""
        scale = float(config.query_pre_attn_scalar**-0.5)
        if layer.rotary is not None and layer.rotary.dim == config.head_dim:
            # of queries and of keys: both would be multiplied by it
            scale *= layer.rotary.attention_factor**2
        return scale

    @classmethod
    def embedding_scale(cls, config: ModelConfig) -> float:
        """Return what embeddings are multiplied by before the first layer."""
        if FAMILIES[config.model_type].scaled_embedding:
            return float(config.hidden_size**0.5)
        return 1.0

    def __init__(
        self,
        config: ModelConfig,
        layer: LayerConfig,
        tensors: Tensors,
        quantization_of: QuantizationOf,
        *,
        fused: bool = False,
    ) -> None:
        gate: Gate = self.gate
        if fused:
            gate = compiled(gate)
        self.read_norms(
            {name: self.norm(tensors[f"{name}.weight"], config) for name in config.norms.names}
        )
        self.self_attn: Attention = self.attention(
            config,
            layer,
            tensors,
            quantization_of,
            norm=self.norm,
            scale=self.attention_scale(config, layer),
        )
        self.mlp: MLP = MLP(tensors, quantization_of, gate=gate)

    def read_norms(self, norms: Mapping[str, Norm]) -> None:
        """Take the layer's norms, which are here by their names inside it."""
        self.input_layernorm: Norm = norms["input_layernorm"]
        self.post_attention_layernorm: Norm = norms["post_attention_layernorm"]

    def adapt(self, change: LayerChange | None) -> None:
        """Let the calls that follow add an adapter's change to the products; None: no more."""
        for stack in STACKS:
            part, name = stack.split(".")
            owner = getattr(self, part)
            added: Sequence[AddedProduct] = ()
            stretch = None
            if change is not None:
                added, stretch = change.products.get(stack, ()), change.stretches.get(stack)
            setattr(owner, name, changed_linear(getattr(owner, name), added, stretch))

    def __call__(self, hidden: mx.array, spans: LayerSpans, *, many: bool = False) -> mx.array:
        """Return the hidden states (1, L, E) after this layer; MLX takes its own ways."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), spans)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))
