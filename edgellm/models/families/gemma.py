"""Gemma 2's and 3's decoder block in MLX: four norms a layer, and a GELU gate."""

# L new tokens, E hidden, F inner

from __future__ import annotations

import math
from collections.abc import Mapping

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.models.layers import LayerSpans
from edgellm.models.llama import Block, Norm

GELU_SLOPE = math.sqrt(2 / math.pi)


class OffsetNorm:
    """``x / rms(x) * (1 + weight)`` along the last axis, rounded once, at the end."""

    def __init__(self, weight: mx.array, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x`` normalized."""
        # in a buffer of the ring the weight is another layer's at the next call: nothing is kept
        scale = 1.0 + self.weight.astype(mx.float32)
        return mx.fast.rms_norm(x.astype(mx.float32), scale, self.eps).astype(x.dtype)


def gelu_gate(gate: mx.array, up: mx.array) -> mx.array:
    """Return ``gelu(gate) * up``, GELU in its form with tanh (Hendrycks and Gimpel 2016)."""
    x = gate.astype(mx.float32)
    gelu = 0.5 * x * (1.0 + mx.tanh(GELU_SLOPE * (x + 0.044715 * x * x * x)))
    return gelu.astype(gate.dtype) * up


class GemmaBlock(Block):
    """One decoder layer: norms before and after attention and the feed-forward part."""

    @staticmethod
    def gate(gate: mx.array, up: mx.array) -> mx.array:
        """Return what the feed-forward part makes of gate and up, both (..., F)."""
        return gelu_gate(gate, up)

    @classmethod
    def norm(cls, weight: mx.array, config: ModelConfig) -> Norm:
        """Return the norm with this weight, which is what differs from 1."""
        return OffsetNorm(weight, config.rms_norm_eps)

    def read_norms(self, norms: Mapping[str, Norm]) -> None:
        """Take the layer's norms, which are here by their names inside it."""
        super().read_norms(norms)
        self.pre_feedforward_layernorm: Norm = norms["pre_feedforward_layernorm"]
        self.post_feedforward_layernorm: Norm = norms["post_feedforward_layernorm"]

    def __call__(self, hidden: mx.array, spans: LayerSpans, *, many: bool = False) -> mx.array:
        """Return the hidden states (1, L, E) after this layer; MLX takes its own ways."""
        attended = self.self_attn(self.input_layernorm(hidden), spans)
        hidden = hidden + self.post_attention_layernorm(attended)
        added = self.mlp(self.pre_feedforward_layernorm(hidden))
        return hidden + self.post_feedforward_layernorm(added)
