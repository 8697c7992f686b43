"""The arrays of a layer: those that derivatives hold at once, and results that are kept."""

from __future__ import annotations

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.device import machine as device
from edgellm.models.llama import Attention, Block
from edgellm.models.registry import block_class

KERNEL_FLOATS, MLX_FLOATS = 2.0, 7.5
"""Arrays of a part's widths that its derivatives hold at once: of operations on kernels, and of
MLX's; measured on models of 7B's and 1.1B's width, 128 to 1,024 tokens."""

KERNEL_SCORES, MLX_SCORES = 0.2, 2.2
"""Matrices of attention's scores that they hold, likewise."""


def layer_floats(config: ModelConfig, tokens: int, longest: int) -> int:
    """Return the numbers that derivatives of a layer hold at once.

    Args:
        config: of the model.
        tokens: that are in the layer together.
        longest: of them those of one sequence at most.
    """
    block = block_class(config)
    windows = [config.layer(index).window for index in range(config.num_hidden_layers)]
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    floats, scores, gate = MLX_FLOATS, MLX_SCORES, MLX_FLOATS
    if not device.has_gpu():
        # what RotaryAttention and KernelMLP take
        if block.attention is Attention and config.query_key_norm is None and not any(windows):
            floats, scores = KERNEL_FLOATS, KERNEL_SCORES
        if block.gate is Block.gate:
            gate = KERNEL_FLOATS
    widths = floats * (4 * config.hidden_size + 3 * queries + 3 * keys)
    widths += gate * 5 * config.intermediate_size
    return int(widths * tokens + scores * config.num_attention_heads * longest**2)


def result_floats(config: ModelConfig, tokens: int) -> int:
    """Return the numbers of a layer's results: of its products, and of attention."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    widths = 2 * config.hidden_size + 2 * config.intermediate_size + heads * config.head_dim
    return tokens * widths
