"""The ``config.json`` that edgellm, mlx-lm and transformers all understand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.checkpoint.dialects.rotary import FULL, SLIDING, RopeScaling, rotated_share
from edgellm.checkpoint.family_configs import FAMILIES
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import CONFIG_KEYS

DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
"""The name of each type in a config, by safetensors' code."""

REWRITTEN = {
    *CONFIG_KEYS,
    "_name_or_path",
    "auto_map",
    "dtype",
    "torch_dtype",
    "rope_parameters",
    "rope_scaling",
}
"""Left out or said again; ``auto_map`` names programs, which are not copied."""


def portable_config(
    raw: Mapping[str, Any], config: ModelConfig, dtype: str, quantization: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Make a config that leaves nothing to a reader's defaults, which differ.

    mlx-lm takes a missing ``tie_word_embeddings`` for true and knows ``rope_parameters`` for few
    models only; transformers 5 reads ``rope_theta`` with ``rope_scaling``. mlx-lm and the Hub's
    pages look for the quantization under two names.
    """
    scaling = None
    if config.rope_scaling is not None:
        scaling = config.rope_scaling.as_config()
    written = {key: value for key, value in raw.items() if key not in REWRITTEN}
    # transformers would take a family's usual token, be there such a token or not
    written.setdefault("pad_token_id", None)
    written |= {
        "model_type": config.model_type,
        "head_dim": config.head_dim,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": DTYPE_NAMES[dtype],
    }
    if config.rope_scaling is not None and config.rope_scaling.kind == "longrope":
        # a phi3's readers look for it beside the block, and take 4096 where it is not
        original = config.rope_scaling.original_max_position_embeddings
        written["original_max_position_embeddings"] = original
    local, local_key = config.local_rotary, FAMILIES[config.model_type].local_rope_key
    if local is not None and local_key != "rope_theta":
        written[str(local_key)] = local.theta
    if config.sliding_window is not None:
        written["sliding_window"] = config.sliding_window
    if config.rotary_dim != config.head_dim:
        written["partial_rotary_factor"] = rotated_share(raw)
    is_exaone = config.model_type == "exaone4"
    some = config.sliding_layers and len(config.sliding_layers) < config.num_hidden_layers
    if some or is_exaone:
        written["layer_types"] = [
            SLIDING if index in config.sliding_layers else FULL
            for index in range(config.num_hidden_layers)
        ]
    pattern = _window_pattern(config)
    if pattern is not None or is_exaone:
        written["sliding_window_pattern"] = pattern
    if config.local_rotary is not None:
        # the old form cannot say all of it; transformers 5 reads both, and this one first
        written["rope_parameters"] = {
            FULL: _rope_parameters(config.rope_theta, config.rope_scaling),
            SLIDING: _rope_parameters(config.local_rotary.theta, config.local_rotary.scaling),
        }
    if quantization is not None:
        written |= {key: dict(quantization) for key in CONFIG_KEYS}
    return dict(sorted(written.items()))


def _window_pattern(config: ModelConfig) -> str | int | None:
    """Return the pattern of layers with a window, which mlx-lm reads instead of ``layer_types``.

    None: it reads none, or has no word for these layers.
    """
    layers = range(config.num_hidden_layers)
    full = [index for index in layers if index not in config.sliding_layers]
    if not config.sliding_layers or not full:
        return None
    if config.model_type == "exaone4":
        return "".join("LG"[index in full] for index in layers)
    every = full[0] + 1
    if config.model_type == "gemma3_text" and full == list(layers[full[0] :: every]):
        return every
    return None


def _rope_parameters(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """Return rotary settings in the new form."""
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    return scaling.as_config() | {"rope_theta": theta}
