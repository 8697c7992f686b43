"""Presets: the configs of published models, without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from edgellm.errors import ConfigError

Config = Mapping[str, Any]
"""The contents of a ``config.json``."""


def _shape(  # noqa: PLR0917
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    groups: int,
    vocabulary: int,
    context: int,
    /,
    **more: Any,
) -> Config:
    """Return a config of these numbers, by position for the table below to stay readable."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    } | more


def _scaled(factor: float) -> Config:
    """Return how Llama 3.1 and 3.2 scale their rotary frequencies."""
    bounds = {
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return {
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": factor} | bounds,
    }


_LLAMA2: Config = {"torch_dtype": "float16"}
_LLAMA3: Config = {"rope_theta": 500000.0}
_MISTRAL: Config = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "rope_theta": 1e6,
    "sliding_window": None,  # which only the first version had
}
_MISTRAL_SMALL: Config = {**_MISTRAL, "rope_theta": 1e9}
_QWEN2: Config = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "use_sliding_window": False,
}
_QWEN3: Config = {
    **_QWEN2,
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 128,
}
_SMOLLM3: Config = {
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "rms_norm_eps": 1e-6,
    "rope_theta": 5e6,
    "no_rope_layer_interval": 4,
}
_OLMO2: Config = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
}
_OLMO3: Config = {
    **_OLMO2,
    "architectures": ["Olmo3ForCausalLM"],
    "model_type": "olmo3",
    "sliding_window": 4096,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    },
}
_EXAONE4: Config = {
    **_scaled(16.0),
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "rope_theta": 1e6,
    "sliding_window": None,
}
_HUNYUAN: Config = {
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "model_type": "hunyuan_v1_dense",
    "head_dim": 128,
    "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 1000.0},
}
_GEMMA: Config = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
_GEMMA2: Config = {
    **_GEMMA,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
}
_GEMMA3: Config = {
    **_GEMMA,
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "rope_theta": 1e6,
    "rope_local_base_freq": 10000.0,
    "sliding_window_pattern": 6,
}
_LINEAR8: Config = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
_TIED: Config = {"tie_word_embeddings": True}
# fmt: off
_PHI4_MINI_STRETCH = [
    1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649,
    2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845,
    5.351743533, 5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158,
    11.70738129, 13.09260651, 14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105,
    25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71,
    32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
]
# fmt: on
_PHI4_MINI: Config = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "partial_rotary_factor": 0.75,
    "sliding_window": 262144,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 48,
        "long_factor": _PHI4_MINI_STRETCH,
    },
}

SHAPES: Mapping[str, Config] = {
    "llama-2-7b": _shape(4096, 11008, 32, 32, 32, 32000, 4096, **_LLAMA2),
    "llama-2-13b": _shape(5120, 13824, 40, 40, 40, 32000, 4096, **_LLAMA2),
    "llama-2-70b": _shape(8192, 28672, 80, 64, 8, 32000, 4096, **_LLAMA2),
    "tinyllama-1.1b": _shape(2048, 5632, 22, 32, 4, 32000, 2048),
    "llama-3-8b": _shape(4096, 14336, 32, 32, 8, 128256, 8192, **_LLAMA3),
    "llama-3-70b": _shape(8192, 28672, 80, 64, 8, 128256, 8192, **_LLAMA3),
    "llama-3.1-8b": _shape(4096, 14336, 32, 32, 8, 128256, 131072, **_scaled(8.0)),
    "llama-3.2-1b": _shape(
        2048, 8192, 16, 32, 8, 128256, 131072, head_dim=64, **_scaled(32.0), **_TIED
    ),
    "llama-3.2-3b": _shape(
        3072, 8192, 28, 24, 8, 128256, 131072, head_dim=128, **_scaled(32.0), **_TIED
    ),
    "mistral-7b": _shape(4096, 14336, 32, 32, 8, 32768, 32768, **_MISTRAL),
    "mistral-small-24b": _shape(
        5120, 32768, 40, 32, 8, 131072, 131072, head_dim=128, **_MISTRAL_SMALL
    ),
    # a phi3, which runs as a llama
    "phi-4-14b": _shape(5120, 17920, 40, 40, 10, 100352, 16384, rope_theta=250000.0),
    "phi-4-mini": _shape(3072, 8192, 32, 24, 8, 200064, 131072, **_PHI4_MINI, **_TIED),
    "gemma-2-2b": _shape(2304, 9216, 26, 8, 4, 256000, 8192, **_GEMMA2),
    "gemma-3-1b": _shape(1152, 6912, 26, 4, 1, 262144, 32768, **_GEMMA3, sliding_window=512),
    # the text part
    "gemma-3-4b": _shape(
        2560, 10240, 34, 8, 4, 262208, 131072, **_GEMMA3, **_LINEAR8, sliding_window=1024
    ),
    "qwen2.5-0.5b": _shape(896, 4864, 24, 14, 2, 151936, 32768, **_QWEN2, **_TIED),
    "qwen2.5-1.5b": _shape(1536, 8960, 28, 12, 2, 151936, 32768, **_QWEN2, **_TIED),
    "qwen2.5-3b": _shape(2048, 11008, 36, 16, 2, 151936, 32768, **_QWEN2, **_TIED),
    "qwen2.5-7b": _shape(3584, 18944, 28, 28, 4, 152064, 32768, **_QWEN2),
    "qwen2.5-14b": _shape(5120, 13824, 48, 40, 8, 152064, 32768, **_QWEN2),
    "qwen2.5-32b": _shape(5120, 27648, 64, 40, 8, 152064, 32768, **_QWEN2),
    "qwen2.5-72b": _shape(8192, 29568, 80, 64, 8, 152064, 32768, **_QWEN2),
    "qwen3-0.6b": _shape(1024, 3072, 28, 16, 8, 151936, 40960, **_QWEN3, **_TIED),
    "qwen3-1.7b": _shape(2048, 6144, 28, 16, 8, 151936, 40960, **_QWEN3, **_TIED),
    "qwen3-4b": _shape(2560, 9728, 36, 32, 8, 151936, 40960, **_QWEN3, **_TIED),
    "qwen3-8b": _shape(4096, 12288, 36, 32, 8, 151936, 40960, **_QWEN3),
    "qwen3-14b": _shape(5120, 17408, 40, 40, 8, 151936, 40960, **_QWEN3),
    "qwen3-32b": _shape(5120, 25600, 64, 64, 8, 151936, 40960, **_QWEN3),
    "smollm3-3b": _shape(2048, 11008, 36, 16, 4, 128256, 65536, **_SMOLLM3, **_TIED),
    "olmo2-1b": _shape(2048, 8192, 16, 16, 16, 100352, 4096, **_OLMO2),
    "olmo2-7b": _shape(4096, 11008, 32, 32, 32, 100352, 4096, **_OLMO2),
    "olmo2-13b": _shape(5120, 13824, 40, 40, 40, 100352, 4096, **_OLMO2),
    "olmo3-7b": _shape(4096, 11008, 32, 32, 32, 100278, 65536, **_OLMO3),
    "olmo3-32b": _shape(5120, 27648, 64, 40, 8, 100278, 65536, **_OLMO3),
    "exaone4-1.2b": _shape(2048, 4096, 30, 32, 8, 102400, 65536, head_dim=64, **_EXAONE4, **_TIED),
    "exaone4-32b": _shape(
        5120, 27392, 64, 40, 8, 102400, 131072, head_dim=128, **{**_EXAONE4, "sliding_window": 4096}
    ),
    "hunyuan-0.5b": _shape(1024, 3584, 24, 16, 8, 120818, 262144, **_HUNYUAN, **_TIED),
    "hunyuan-1.8b": _shape(2048, 6144, 32, 16, 4, 120818, 262144, **_HUNYUAN, **_TIED),
    "hunyuan-4b": _shape(3072, 8192, 36, 32, 8, 120818, 262144, **_HUNYUAN, **_TIED),
    "hunyuan-7b": _shape(4096, 14336, 32, 32, 8, 128167, 262144, **_HUNYUAN, **_TIED),
    # A fraction of a megabyte each: every kind of layer, for tests and for a first try of a
    # command.
    "tiny-llama": _shape(128, 192, 6, 4, 2, 640, 2048),
    "tiny-llama-tied": _shape(128, 192, 6, 4, 2, 640, 16384, **_scaled(8.0), **_TIED),
    "tiny-mistral": _shape(128, 192, 6, 4, 2, 640, 2048, **{**_MISTRAL, "sliding_window": 64}),
    "tiny-qwen2": _shape(128, 192, 6, 4, 2, 640, 2048, **_QWEN2),
    "tiny-qwen3": _shape(128, 192, 6, 4, 2, 640, 2048, **{**_QWEN3, "head_dim": 64}, **_TIED),
}
"""By name: ``config.json`` as the model's makers publish it."""


def shape_config(name: str) -> Config:
    """Return the config of a known shape.

    Raises:
        ConfigError: there is none of this name; the hint says the closest.
    """
    config = SHAPES.get(name.lower())
    if config is None:
        hint = f"known shapes: {', '.join(SHAPES)}"
        close = get_close_matches(name.lower(), SHAPES, n=1, cutoff=0.5)
        if close:
            hint = f"did you mean {close[0]}?"
        raise ConfigError(f"there is no shape {name[:60]!r}", hint=hint)
    return config
