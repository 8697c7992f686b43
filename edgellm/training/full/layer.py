"""A decoder layer whose weights are arguments of each call."""

# T tokens of all sequences, E hidden

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.device import machine as device
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.kv_cache.sequence_kv import SequenceKV
from edgellm.models import llama
from edgellm.models.linear import Tensors
from edgellm.models.registry import block_class
from edgellm.training.full.arithmetic import silu_gate, stacked_product
from edgellm.training.operations.attention import attention_by_numpy


class LearnedStack:
    """The product of matrices with the same input, which may be differentiated by.

    Args:
        tensors: of the layer, by their names inside it.
        members: names of the matrices.
    """

    def __init__(self, tensors: Tensors, members: Sequence[str]) -> None:
        self._weights = [tensors[f"{member}.weight"] for member in members]
        self.out_features: int = sum(weight.shape[0] for weight in self._weights)
        self._bias: mx.array | None = None
        biases = [tensors.get(f"{member}.bias") for member in members]
        if any(bias is not None for bias in biases):
            parts = [
                mx.zeros(weight.shape[0]) if bias is None else bias
                for weight, bias in zip(self._weights, biases, strict=True)
            ]
            self._bias = mx.concatenate(parts)

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x @ weight.T (+ bias)``, of all members side by side."""
        product = stacked_product(x, self._weights)
        if self._bias is None:
            return product
        return product + self._bias


def through_layer(
    config: ModelConfig, index: int, tensors: Tensors, hidden: mx.array, lengths: Sequence[int]
) -> mx.array:
    """Return the hidden states (1, T, E) after a layer.

    Args:
        config: of the model.
        index: the layer's number.
        tensors: of the layer, by their names inside it, in float32.
        hidden: of sequences side by side (1, T, E).
        lengths: tokens of each.
    """
    layer = config.layer(index)
    block = block_class(config)(config, layer, tensors, lambda _: None)
    for stack, members in STACKS.items():
        part, name = stack.split(".")
        setattr(getattr(block, part), name, LearnedStack(tensors, members))
    if not device.has_gpu():
        block.self_attn.attention = attention_by_numpy
        if block.mlp.gate is llama.Block.gate:
            block.mlp.gate = silu_gate
    kv_format = KVFormat(config.num_key_value_heads, config.head_dim, mx.float32)
    caches = [(SequenceKV(kv_format, layer.window), length) for length in lengths]
    return block(hidden, caches)
