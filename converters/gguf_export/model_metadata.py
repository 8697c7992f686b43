"""A model's shape as GGUF's metadata; ``converters/gguf/model_config`` reads it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from edgellm.checkpoint.dialects.rotary import RopeScaling, yarn_magnitude
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters.gguf.rope_scaling import (
    LONG_FACTORS,
    ROPE_FACTORS,
    SHORT_FACTORS,
    rope_factors,
)
from edgellm.converters.gguf_export.family_metadata import family_metadata, require_llama_cpps
from edgellm.converters.gguf_export.vocabulary import SHARE_FOLDER
from edgellm.converters.gguf_export.writer import GgufOutput
from edgellm.errors import UnsupportedModelError

FILE_TYPES: Mapping[str, int] = {
    "F32": 0,
    "F16": 1,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_1": 9,
    "BF16": 32,
    "TQ2_0": 37,
    "MXFP4": 38,
    "NVFP4": 39,
    "Q1_0": 40,
    "Q2_0": 41,
}
"""llama.cpp's number for a file by the type that most of its weights have; for people only."""


ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "ministral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "exaone4": "exaone4",
    "hunyuan_v1_dense": "hunyuan-dense",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
"""llama.cpp's names of the families whose metadata and tensors are written here."""


def architecture_of(config: ModelConfig) -> str:
    """Return llama.cpp's name for this kind of model. Raises UnsupportedModelError."""
    if config.model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"models of type {config.model_type} cannot be exported to GGUF",
            hint=f"it can be done for {', '.join(ARCHITECTURES)}",
        )
    architecture = ARCHITECTURES[config.model_type]
    require_llama_cpps(config, architecture)
    return architecture


def model_metadata(config: ModelConfig, name: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Return the file's metadata, except the tokenizer's.

    Args:
        config: the model's config.
        name: for people.
        kinds: ggml's type of each tensor, by Hugging Face's name.
    """
    architecture = architecture_of(config)
    projections = Counter(
        kind
        for tensor, kind in kinds.items()
        if tensor.startswith("model.layers.0.") and "_proj" in tensor
    )
    [(usual_kind, _)] = projections.most_common(1)
    shape: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.rotary_dim,
        "rope.freq_base": config.rope_theta,
        "vocab_size": config.vocab_size,
    }
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "linear":
        shape["rope.scaling.type"] = "linear"
        shape["rope.scaling.factor"] = scaling.factor
    if scaling is not None and scaling.kind in ("llama3", "yarn", "longrope"):
        # of llama3 and longrope the factors themselves are tensors
        shape["rope.scaling.original_context_length"] = scaling.original_max_position_embeddings
    if scaling is not None and scaling.kind == "yarn":
        shape |= _yarn_metadata(scaling)
    if scaling is not None and scaling.kind == "longrope":
        shape["rope.scaling.type"] = "longrope"
        shape["rope.scaling.attn_factor"] = scaling.attention_factor
    shape |= family_metadata(config, architecture)
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[usual_kind],
        "general.quantization_version": 2,
        **{f"{architecture}.{key}": value for key, value in shape.items()},
    }


def _yarn_metadata(scaling: RopeScaling) -> dict[str, Any]:
    """Return yarn's numbers as llama.cpp reads them."""
    if not scaling.truncate:
        raise UnsupportedModelError(
            "llama.cpp's yarn has no truncate: false, which this model's config says",
            hint=SHARE_FOLDER,
        )
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": scaling.factor,
        # which llama.cpp multiplies by yarn's own
        "rope.scaling.attn_factor": scaling.attention_factor / yarn_magnitude(scaling.factor),
        "rope.scaling.yarn_beta_fast": scaling.beta_fast,
        "rope.scaling.yarn_beta_slow": scaling.beta_slow,
    }


def rope_factor_outputs(config: ModelConfig) -> list[GgufOutput]:
    """Return the tensors with Llama 3's or longrope's factors of the rotary wavelengths."""
    scaling = config.rope_scaling
    tensors = {}
    if scaling is not None and scaling.kind == "llama3":
        tensors[ROPE_FACTORS] = rope_factors(config.head_dim, config.rope_theta, scaling)
    if scaling is not None and scaling.kind == "longrope":
        tensors[LONG_FACTORS] = np.array(scaling.long_factors, np.float32)
        tensors[SHORT_FACTORS] = np.array(scaling.short_factors, np.float32)
    return [
        GgufOutput(name, "F32", factors.shape, partial(list, [factors]))
        for name, factors in tensors.items()
    ]
