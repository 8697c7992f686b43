"""The kinds of layers among LitGPT's models: LLaMA's, Gemma 2's and 3's, OLMo 2's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from edgellm.errors import UnsupportedModelError
from edgellm.files.strict_json import quoted

Config = Mapping[str, Any]

BITS = frozenset({"0", "1"})

LIKE_LLAMA: Mapping[str, tuple[object, object]] = {
    "norm_class_name": ("RMSNorm", "LayerNorm"),
    "mlp_class_name": ("LLaMAMLP", "GptNeoxMLP"),
    "parallel_residual": (False, True),
    "norm_1": (True, True),
    "norm_2": (True, True),
    "norm_qk_type": ("default", "default"),
}
"""What a LLaMA has, and what LitGPT takes where the key is left out."""

ABSENT = frozenset(
    {
        "attention_logit_softcapping",
        "final_logit_softcapping",
        "first_k_dense_replace",
        "latent_attention",
        "lm_head_bias",
        "n_expert",
        "n_shared_expert",
        "post_attention_norm",
        "post_mlp_norm",
        "rope_indices",
        "rope_interleave",
        "rope_local_base_freq",
        "scale_embeddings",
    }
)
"""What a LLaMA does not have: nothing, false or zero."""

POST_NORMS = "post_attention_norm"
WAY_ROUND = (
    "export it with the LitGPT that made it (litgpt convert_from_litgpt) as pytorch_model.bin, "
    "beside the config.json of the model"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of layer, by what it has unlike LLaMA's.

    Attributes:
        instead: of ``LIKE_LLAMA``'s values.
        has: of ``ABSENT``'s keys.
        may_have: of the others.
    """

    instead: Mapping[str, object] = field(default_factory=dict)
    has: frozenset[str] = frozenset()
    may_have: frozenset[str] = frozenset()


PLAIN = Kind()
OLMO_2 = Kind(
    instead={"norm_1": False, "norm_2": False, "norm_qk_type": "olmo2"},
    has=frozenset({POST_NORMS, "post_mlp_norm"}),
)
GEMMA = Kind(
    instead={"mlp_class_name": "GemmaMLP"},
    has=frozenset({POST_NORMS, "post_mlp_norm", "scale_embeddings"}),
    may_have=frozenset(
        {
            "attention_logit_softcapping",
            "final_logit_softcapping",
            "rope_indices",
            "rope_local_base_freq",
        }
    ),
)
"""Gemma 2 and 3."""


def kind_of(config: Config) -> Kind:
    """Return the kind of layer that a config is to be read as."""
    if config.get("mlp_class_name") == "GemmaMLP" and config.get(POST_NORMS):
        return GEMMA
    if config.get("norm_qk_type") == "olmo2":
        return OLMO_2
    return PLAIN


def require_kind(kind: Kind, config: Config, head_dim: int, file: str) -> None:
    """Raise UnsupportedModelError for what a kind of layer does not have."""
    for key, (wanted, usual) in LIKE_LLAMA.items():
        found = config.get(key, usual)
        if found != kind.instead.get(key, wanted):
            refuse(file, key, found)
    for key in ABSENT:
        value = config.get(key)
        if key in kind.has and not value:
            refuse(file, key, value)
        if value and key not in kind.has and key not in kind.may_have:
            refuse(file, key, value)
    # by which LitGPT knows that norms add one
    if ("Gemma" in str(config.get("name"))) != (kind is GEMMA):
        refuse(file, "name", config.get("name"))
    scalar = config.get("attention_scores_scalar")
    if kind is not GEMMA and scalar not in (None, head_dim):
        refuse(file, "attention_scores_scalar", scalar)
    if kind is not PLAIN:
        for key, wanted in (("bias", False), ("attn_bias", False), ("norm_qk", kind is OLMO_2)):
            if config.get(key, key == "bias") != wanted and (kind, key) != (GEMMA, "norm_qk"):
                refuse(file, key, config.get(key))


def gemma_config(config: Config, head_dim: int, layers: int, file: str) -> dict[str, Any]:
    """Return what Gemma 2's and 3's configs say beside LLaMA's."""
    windows = config.get("sliding_window_indices")
    if windows is None and config.get("sliding_window_layer_placing") == "interleaved":
        windows = [1 - layer % 2 for layer in range(layers)]
    if not isinstance(windows, list) or len(windows) < layers or set(map(repr, windows)) - BITS:
        refuse(file, "sliding_window_indices", windows)
    if config.get("gelu_approximate") != "tanh":
        refuse(file, "gelu_approximate", config.get("gelu_approximate"))
    kinds = {0: "full_attention", 1: "sliding_attention"}
    said = {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config.get("attention_scores_scalar") or head_dim,
        "attn_logit_softcapping": config.get("attention_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "sliding_window": config.get("sliding_window_size"),
        "layer_types": [kinds[item] for item in windows[:layers]],
    }
    local = config.get("rope_local_base_freq")
    if not config.get("norm_qk"):
        if local is not None:
            refuse(file, "rope_local_base_freq", local)
        return said | named("gemma2", "Gemma2")
    # layers with a window are those that turn by the other base
    turned = config.get("rope_indices")
    if local is None or not isinstance(turned, list) or turned[:layers] != windows[:layers]:
        refuse(file, "rope_indices", turned)
    if said["attn_logit_softcapping"]:
        refuse(file, "attention_logit_softcapping", said["attn_logit_softcapping"])
    return said | named("gemma3_text", "Gemma3") | {"rope_local_base_freq": local}


def refuse(file: str, key: str, value: object) -> NoReturn:
    """Raise UnsupportedModelError for what a config says."""
    raise UnsupportedModelError(
        f"{file} says {key}: {quoted(value)}, which no family that edgellm knows has",
        hint=WAY_ROUND,
    )


def named(family: str, name: str) -> dict[str, Any]:
    """Return a family's two names in Hugging Face's config."""
    return {"model_type": family, "architectures": [f"{name}ForCausalLM"]}
