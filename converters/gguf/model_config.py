"""GGUF's metadata as Hugging Face's config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgellm.converters.gguf.architectures.table import ARCHITECTURES
from edgellm.converters.gguf.family_numbers import own_numbers
from edgellm.converters.gguf.metadata import OTHER_FILE, Metadata, ModelNumbers
from edgellm.errors import UnsupportedModelError
from edgellm.files.strict_json import quoted

UNSUPPORTED_KEYS = (
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attention.clamp_kqv",
)
"""Metadata that change the computation of a model in ways that edgellm does not run."""


def read_config(metadata: Metadata, vocab_size: int, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return Hugging Face's config, except ``rope_scaling``.

    Args:
        metadata: the file's.
        vocab_size: rows of the embedding.
        tensors: the model's tensors by Hugging Face's name; only the names are looked at.

    Raises:
        UnsupportedModelError: another kind of model.
        FormatError: a number is missing or no number.
    """
    architecture = metadata.text("general.architecture")
    if architecture is None or architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"the GGUF file's architecture {quoted(architecture)} is not supported",
            hint=f"edgellm runs: {known}; families of mlx-lm also run, from a safetensors folder",
        )
    row = ARCHITECTURES[architecture]
    numbers = ModelNumbers(metadata, architecture)
    if numbers.integer("expert_count", 0):
        raise UnsupportedModelError(
            "the GGUF file holds a mixture of experts, which is not supported",
            hint="take the model's safetensors folder: all families of mlx-lm run from it",
        )
    hidden = numbers.integer("embedding_length")
    heads = numbers.integer("attention.head_count")
    head_dim = numbers.integer("attention.key_length", hidden // max(1, heads))
    rotated = numbers.integer("rope.dimension_count", head_dim)
    whole = {"attention.value_length": numbers.integer("attention.value_length", head_dim)}
    if not row.partial_rotary:
        whole["rope.dimension_count"] = rotated
    for key, size in whole.items():
        if size != head_dim:
            raise UnsupportedModelError(
                f"{architecture}.{key} is not {head_dim}, the size of a head: this is not supported"
            )
    for key in UNSUPPORTED_KEYS:
        if numbers.key(key) in metadata and key not in row.numbers:
            raise UnsupportedModelError(
                f"the GGUF file sets {architecture}.{key}, which edgellm does not know",
                hint=OTHER_FILE,
            )
    own: dict[str, Any] = {
        ours: numbers.real(key, 0.0)
        for key, ours in row.numbers.items()
        if numbers.key(key) in metadata
    }
    if rotated != head_dim:
        share = rotated / head_dim
        if int(head_dim * share) < rotated:  # rounded down
            share = math.nextafter(share, 2.0)
        own["partial_rotary_factor"] = share
    attention_bias = "model.layers.0.self_attn.q_proj.bias" in tensors
    own |= own_numbers(architecture, numbers)
    return {
        "architectures": [row.class_name],
        "model_type": row.model_type,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": numbers.integer("feed_forward_length"),
        "num_hidden_layers": numbers.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": numbers.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": numbers.integer("context_length", 2048),
        "rms_norm_eps": numbers.real("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": numbers.real("rope.freq_base", 10000.0),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "attention_bias": attention_bias,
        "mlp_bias": "model.layers.0.mlp.gate_proj.bias" in tensors,
    } | own
