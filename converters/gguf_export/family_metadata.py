"""A family's metadata beyond LLaMA's, and all that llama.cpp takes for granted of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters.gguf.family_numbers import (
    EXAONE4_WITH_WINDOWS,
    FULL_EVERY,
    LOCAL_BASE,
    PATTERN,
    WINDOW,
    query_scalar,
)
from edgellm.converters.gguf_export.vocabulary import SHARE_FOLDER
from edgellm.errors import UnsupportedModelError

WITH_BIASES = ("llama", "qwen2", "seed_oss")
"""Architectures whose queries, keys and values may have biases."""

LONGROPE = ("llama", "phi3")
"""Those that read longrope's factors."""

AS_WIDE = ("phi3", "olmo2", "exaone4")
"""Those whose heads together are as wide as the hidden states."""

GEMMAS = ("gemma2", "gemma3")


def require_llama_cpps(config: ModelConfig, architecture: str) -> None:
    """Raise UnsupportedModelError where llama.cpp would compute something else, with the reason."""
    for reason in _differences(config, architecture):
        raise UnsupportedModelError(f"llama.cpp's {architecture} {reason}", hint=SHARE_FOLDER)


def _differences(config: ModelConfig, architecture: str) -> Iterator[str]:
    """Yield what llama.cpp's model of a family has or lacks, and this one does not."""
    scaling = None if config.rope_scaling is None else config.rope_scaling.kind
    if architecture != "llama" and (config.output_bias or config.mlp_bias):
        yield "has no such biases"
    if architecture not in WITH_BIASES and config.qkv_bias:
        yield "has no biases"
    if scaling == "longrope" and architecture not in LONGROPE:
        yield "has no longrope"
    width = config.num_attention_heads * config.head_dim
    if architecture in AS_WIDE and width != config.hidden_size:
        yield f"has heads as wide as the hidden states, {width} here and {config.hidden_size}"
    if architecture == "olmo2" and config.tie_word_embeddings:
        yield "has a head of its own, and this model's is the embedding"
    if architecture == "smollm3" and config.nope_layers != frozenset(
        range(3, config.num_hidden_layers, 4)
    ):
        yield "has no rotary positions in every fourth layer, and this model in others"
    if architecture == "smollm3" and config.sliding_window is not None:
        yield "has no windows"
    if architecture == "exaone4" and bool(config.sliding_layers) != (
        config.num_hidden_layers == EXAONE4_WITH_WINDOWS
    ):
        yield f"has windows where there are {EXAONE4_WITH_WINDOWS} layers, and nowhere else"
    if architecture in FULL_EVERY and config.sliding_layers and _full_every(config) is None:
        yield "has windows in a pattern that comes again and again, and this model has none"
    local = config.local_rotary
    if local is not None and local.scaling is not None:
        yield "never stretches positions of layers with a window"
    if architecture == "olmo2" and local is not None and local.theta != config.rope_theta:
        yield "has one rotary base for all layers"
    if architecture in GEMMAS:
        yield from _differences_of_gemma(config, architecture, scaling)


def _differences_of_gemma(
    config: ModelConfig, architecture: str, scaling: str | None
) -> Iterator[str]:
    if config.query_pre_attn_scalar != query_scalar(
        architecture,
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.head_dim,
    ):
        yield f"knows no query_pre_attn_scalar like {config.query_pre_attn_scalar:g}"
    if scaling not in (None, "linear"):
        yield f"has no {scaling}"
    if not config.tie_word_embeddings and architecture == "gemma2":
        yield "has no head of its own"
    caps = (config.attn_logit_softcapping, config.final_logit_softcapping)
    if architecture == "gemma2" and None in caps:
        yield "has soft caps, and this model lacks one"
    if architecture == "gemma3" and caps != (None, None):
        yield "has no soft cap"


def family_metadata(config: ModelConfig, architecture: str) -> dict[str, Any]:
    """Return an architecture's own keys, without its name before them."""
    if architecture not in FULL_EVERY:
        return {}
    numbers: dict[str, Any] = {}
    if config.sliding_layers and config.sliding_window is not None:
        numbers[WINDOW] = config.sliding_window
        every = _full_every(config)
        if every != FULL_EVERY[architecture]:
            numbers[PATTERN] = every
    elif architecture == "gemma2":
        # which has windows, this one or 4096
        numbers[WINDOW] = config.max_position_embeddings
    if architecture == "gemma2":
        numbers["attn_logit_softcapping"] = config.attn_logit_softcapping
        numbers["final_logit_softcapping"] = config.final_logit_softcapping
    if architecture == "gemma3" and config.local_rotary is not None:
        numbers[LOCAL_BASE] = config.local_rotary.theta
    return numbers


def _full_every(config: ModelConfig) -> int | None:
    """Return every how many layers one has no window; None: there is no such number."""
    layers = config.num_hidden_layers
    full = [index for index in range(layers) if index not in config.sliding_layers]
    every = layers + 1
    if full:
        every = full[0] + 1
    if full == list(range(every - 1, layers, every)):
        return every
    return None
