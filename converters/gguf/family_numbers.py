"""An architecture's own metadata, beyond LLaMA's: windows, soft caps, bases, layers apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgellm.checkpoint.dialects.rotary import FULL, SLIDING
from edgellm.converters.gguf.metadata import ModelNumbers

Config = dict[str, Any]

WINDOW = "attention.sliding_window"
PATTERN = "attention.sliding_window_pattern"
LOCAL_BASE = "rope.freq_base_swa"
DEEP_LAYERS: Mapping[str, int] = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores llama.cpp scales by another number than the head size."""


def own_numbers(architecture: str, numbers: ModelNumbers) -> Config:
    """Return the keys of a config that an architecture has beside LLaMA's."""
    read = READERS.get(architecture)
    if read is None:
        return {}
    return read(numbers)


def query_scalar(architecture: str, layers: int, hidden: int, heads: int, head_dim: int) -> int:
    """Return the ``query_pre_attn_scalar`` that llama.cpp takes for a Gemma, which no file says."""
    if layers == DEEP_LAYERS[architecture]:
        return hidden // heads
    return head_dim


def full_every(architecture: str) -> int:
    """Return the ``sliding_window_pattern`` that llama.cpp takes where a file says none."""
    return FULL_EVERY[architecture]


FULL_EVERY: Mapping[str, int] = {"gemma2": 2, "gemma3": 6, "olmo2": 4, "exaone4": 4}
EXAONE4_WITH_WINDOWS = 64
"""Layers of the one EXAONE 4 in which llama.cpp computes windows."""


def _gemma2(numbers: ModelNumbers) -> Config:
    return _gemma("gemma2", numbers) | {
        "attn_logit_softcapping": numbers.real("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": numbers.real("final_logit_softcapping", 30.0),
        **_windows(numbers, "gemma2", 4096),
    }


def _gemma3(numbers: ModelNumbers) -> Config:
    return _gemma("gemma3", numbers) | {
        "rope_theta": numbers.real("rope.freq_base", 1e6),
        "rope_local_base_freq": numbers.real(LOCAL_BASE, 10000.0),
        **_windows(numbers, "gemma3", 0),
    }


def _gemma(architecture: str, numbers: ModelNumbers) -> Config:
    hidden = numbers.integer("embedding_length")
    heads = max(1, numbers.integer("attention.head_count"))
    head_dim = numbers.integer("attention.key_length", hidden // heads)
    layers = numbers.integer("block_count")
    return {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": query_scalar(architecture, layers, hidden, heads, head_dim),
    }


def _smollm3(_: ModelNumbers) -> Config:
    return {"no_rope_layer_interval": 4}


def _olmo2(numbers: ModelNumbers) -> Config:
    windows = _windows(numbers, "olmo2", 0)
    if windows["sliding_window"] is None:
        return {}
    return {"model_type": "olmo3", "architectures": ["Olmo3ForCausalLM"], **windows}


def _exaone4(numbers: ModelNumbers) -> Config:
    if numbers.integer("block_count") != EXAONE4_WITH_WINDOWS:
        return {"sliding_window": None}
    return _windows(numbers, "exaone4", 4096)


def _windows(numbers: ModelNumbers, architecture: str, default: int) -> Config:
    """Return the window, 0 being none, and which layers have it: a pattern, or layer by layer."""
    window = numbers.integer(WINDOW, default)
    if window == 0:
        return {"sliding_window": None}
    layers = numbers.integer("block_count")
    flags = numbers.metadata.get(numbers.key(PATTERN))
    if isinstance(flags, np.ndarray) and flags.ndim == 1 and len(flags) == layers:
        kinds = [SLIDING if flag else FULL for flag in flags.tolist()]
    else:
        every = max(1, numbers.integer(PATTERN, FULL_EVERY[architecture]))
        layers = min(layers, 1024)  # of more, the config is refused
        kinds = [FULL if (index + 1) % every == 0 else SLIDING for index in range(layers)]
    return {"sliding_window": window, "layer_types": kinds}


READERS: Mapping[str, Callable[[ModelNumbers], Config]] = {
    "smollm3": _smollm3,
    "olmo2": _olmo2,
    "exaone4": _exaone4,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}
"""What reads an architecture's own keys."""
