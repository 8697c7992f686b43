"""Changes of a family's config, so that another family's reader understands it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.checkpoint.dialects.config_values import head_dim_of, read_flag, read_real
from edgellm.checkpoint.dialects.rotary import rotary_settings, rotated_share
from edgellm.errors import UnsupportedModelError

Config = dict[str, Any]


def adapt_phi3(config: Config) -> None:
    """Choose the family that a Phi-3 runs as: by its window, and by how much of a head turns."""
    for key in ("rope_scaling", "rope_parameters"):
        settings = config.get(key)
        if isinstance(settings, Mapping) and "yarn" in (
            settings.get("type"),
            settings.get("rope_type"),
        ):
            # as it called longrope once
            config[key] = {**settings, "type": "longrope", "rope_type": "longrope"}
    if rotated_share(config) != 1.0:
        config["model_type"] = "phi3"
        config.setdefault("sliding_window", None)
    elif config.get("sliding_window") is not None:
        config["model_type"] = "mistral"


def adapt_ernie(config: Config) -> None:
    """Say of each product whether it has biases."""
    biased = read_flag(config, "use_bias", default=False)
    config |= {"attention_bias": biased, "mlp_bias": biased}


def adapt_helium(config: Config) -> None:
    """Make a Helium with biases a Qwen2."""
    if read_flag(config, "attention_bias", default=False):
        # which has biases of queries, keys and values, and none of the output
        config |= {"model_type": "qwen2", "use_sliding_window": False}


def is_attention_alone(config: Mapping[str, Any]) -> bool:
    """Return whether no layer of a Granite 4 is a state-space model."""
    kinds = config.get("layer_types", config.get("layers_block_type"))
    listed = kinds if isinstance(kinds, list) else ["mamba"]
    return all(kind in ("attention", "full_attention") for kind in listed)


def adapt_hybrid(config: Config) -> None:
    """Make a dense Granite 4 of attention layers a Granite 3; others are no LLaMA."""
    if not is_attention_alone(config):
        raise UnsupportedModelError(
            "layers of this granitemoehybrid are state-space models, which edgellm does not run",
            hint="Granite 4's dense models (350m, 1b, micro) can be converted, and Granite 3",
        )
    if config.get("position_embedding_type") != "rope":
        raise UnsupportedModelError(
            "this granitemoehybrid has no rotary positions", hint="choose a model that has them"
        )
    config["intermediate_size"] = config.get("shared_intermediate_size")


def adapt_iquest(config: Config) -> None:
    """Refuse switches that no published model sets."""
    for key in ("clip_qkv", "use_sliding_window"):
        if config.get(key):
            raise UnsupportedModelError(
                f"{key} of an iquestcoder is not supported",
                hint="transformers does not run such a model either",
            )


def adapt_hunyuan(config: Config) -> None:
    """Put ``alpha``, by which the rotary base grows once and for all, into the base."""
    if read_flag(config, "use_qk_norm", default=True) is False:
        raise UnsupportedModelError(
            "use_qk_norm of a hunyuan_v1_dense is false",
            hint="transformers does not run such a model either",
        )
    if read_flag(config, "use_cla", default=False):
        raise UnsupportedModelError(
            "use_cla of a hunyuan_v1_dense is set: layers share keys and values",
            hint="transformers does not run such a model either",
        )
    settings = rotary_settings(config)
    kind = settings.get("rope_type", settings.get("type"))
    if kind != "dynamic" or not settings.get("alpha"):
        return
    alpha = read_real(settings, "alpha", 1.0, low=0.0, high=1e9)
    theta = settings.get("rope_theta", config.get("rope_theta"))
    theta = read_real({"rope_theta": theta}, "rope_theta", 10000.0, low=0.0, high=1e12)
    head_dim = head_dim_of(config)
    config["rope_theta"] = theta * alpha ** (head_dim / max(1, head_dim - 2))
    config |= {"rope_parameters": None, "rope_scaling": None}


def adapt_gemma(config: Config) -> None:
    """Refuse a Gemma that reads texts in both directions."""
    if config.get("use_bidirectional_attention"):
        raise UnsupportedModelError(
            "use_bidirectional_attention is set: this Gemma makes embeddings of texts",
            hint="choose a model that generates text",
        )
