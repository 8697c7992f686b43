"""LitGPT's model_config.yaml, or lit_config.json, as Hugging Face's config.

The keys are those of ``litgpt.Config`` of all versions to 0.5.13. A model is of a family by what
its config says, not by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.checkpoint.dialects.config_values import read_number
from edgellm.converters.litgpt.layer_kinds import (
    ABSENT,
    GEMMA,
    LIKE_LLAMA,
    OLMO_2,
    WAY_ROUND,
    Config,
    gemma_config,
    kind_of,
    named,
    refuse,
    require_kind,
)
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.settings import is_int

OLD_NAMES: Mapping[str, str] = {
    "_norm_class": "norm_class_name",
    "_mlp_class": "mlp_class_name",
    "condense_ratio": "rope_condense_ratio",
}
"""Keys as Lit-GPT had them in lit_config.json."""

READ = frozenset(
    {
        "attention_scores_scalar",
        "attn_bias",
        "bias",
        "block_size",
        "head_size",
        "intermediate_size",
        "n_embd",
        "n_head",
        "n_layer",
        "n_query_groups",
        "name",
        "norm_eps",
        "norm_qk",
        "rope_adjustments",
        "rope_base",
        "rope_condense_ratio",
        "rotary_percentage",
        "sliding_window_indices",
        "sliding_window_layer_placing",
        "sliding_window_layer_stride",
        "sliding_window_size",
    }
)

WITHOUT_EFFECT = frozenset(
    {
        "gelu_approximate",
        "hf_config",
        "moe_intermediate_size",
        "n_expert_groups",
        "n_expert_per_token",
        "n_topk_groups",
        "n_topk_scores_per_group",
        "norm_topk_prob",
        "org",
        "padded_vocab_size",
        "padding_multiple",
        "routed_scaling_factor",
        "shared_attention_norm",
        "vocab_size",
    }
)
"""Of experts, of other activations and blocks, or said by the tensors themselves."""

LLAMA_3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len")


@dataclass(frozen=True, slots=True)
class LitShape:
    """The numbers by which LitGPT's fused matrices are taken apart."""

    heads: int
    key_value_heads: int
    head_dim: int


def in_todays_words(stored: Config, file: str) -> dict[str, Any]:
    """Return a config with today's keys. Raises UnsupportedModelError for keys not known."""
    config = {OLD_NAMES.get(key, key): value for key, value in stored.items()}
    known = {*LIKE_LLAMA, *ABSENT, *READ, *WITHOUT_EFFECT}
    for key in config.keys() - known:
        if config[key]:  # what is off has no effect, whatever it is
            raise UnsupportedModelError(
                f"{file} says {quoted(key)}: {quoted(config[key])}, which edgellm does not know",
                hint=WAY_ROUND,
            )
    return config


def shape_of(config: Config, file: str) -> LitShape:
    """Return heads and their size. Raises FormatError."""
    heads = read_number(config, "n_head", limit="num_attention_heads", file=file)
    hidden = read_number(config, "n_embd", limit="hidden_size", file=file)
    groups = read_number(config, "n_query_groups", heads, limit="num_key_value_heads", file=file)
    if heads % groups:
        raise FormatError(f"{file}: {heads} query heads cannot share {groups} key/value heads")
    size = read_number(config, "head_size", max(2, hidden // heads), limit="head_dim", file=file)
    return LitShape(heads, groups, size)


def config_of(config: Config, shape: LitShape, file: str, *, vocabulary: int) -> dict[str, Any]:
    """Return Hugging Face's config of a LitGPT model.

    Args:
        config: as ``in_todays_words`` returned it.
        shape: what ``shape_of`` returned.
        file: its name, for messages.
        vocabulary: rows of the embedding, with the padding that LitGPT keeps in its own export too.

    Raises:
        FormatError: a number is missing or impossible.
        UnsupportedModelError: the model is no LLaMA, or does what edgellm does not.
    """
    kind = kind_of(config)
    require_kind(kind, config, shape.head_dim, file)
    layers = read_number(config, "n_layer", limit="num_hidden_layers", file=file)
    context = read_number(config, "block_size", 4096, limit="max_position_embeddings", file=file)
    made = {
        "hidden_act": "silu",
        "hidden_size": read_number(config, "n_embd", limit="hidden_size", file=file),
        "intermediate_size": read_number(
            config, "intermediate_size", limit="intermediate_size", file=file
        ),
        "num_hidden_layers": layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": vocabulary,
        "rms_norm_eps": config.get("norm_eps", 1e-5),
        "rope_theta": config.get("rope_base", 10_000),
        "rope_scaling": _rope_scaling(config, file),
        "max_position_embeddings": context,
    }
    if kind is GEMMA:
        return made | gemma_config(config, shape.head_dim, layers, file)
    if kind is OLMO_2:
        return made | named("olmo2", "Olmo2")
    return made | _family(config, _window(config, layers, context, file), file)


def _family(config: Config, window: int | None, file: str) -> dict[str, Any]:
    """Return which of the families of one block it is, by its biases, norms and window."""
    bias = config.get("bias", True)
    attention_bias = config.get("attn_bias", False)
    norm = config.get("norm_qk", False)
    for key, value in (("bias", bias), ("attn_bias", attention_bias), ("norm_qk", norm)):
        if not isinstance(value, bool):
            raise FormatError(f"{file}: {key} is {quoted(value)}", hint="true or false")
    rotated = config.get("rotary_percentage", 0.25)
    found = {
        "biases": bias or attention_bias,
        "norm_qk": norm,
        "heads that are rotated in part": rotated != 1,
        "a window": window is not None,
    }
    more = [name for name, there in found.items() if there]
    if len(more) > 1 and more != list(found)[2:]:
        raise UnsupportedModelError(
            f"{file} has {' and '.join(more)}, which edgellm does not run together",
            hint=WAY_ROUND,
        )
    if rotated != 1:
        return named("phi3", "Phi3") | {
            "partial_rotary_factor": rotated,
            "sliding_window": window,
        }
    if window is not None:
        return named("mistral", "Mistral") | {"sliding_window": window}
    if norm:
        return named("qwen3", "Qwen3")
    if attention_bias and not bias:
        return named("qwen2", "Qwen2") | {"use_sliding_window": False}
    return named("llama", "Llama") | {"attention_bias": bias, "mlp_bias": bias}


def _window(config: Config, layers: int, context: int, file: str) -> int | None:
    """Return the sliding window of all layers; None: none that any text would see."""
    size = config.get("sliding_window_size")
    if size is None:
        return None
    if not is_int(size) or size < 1:
        raise FormatError(f"{file}: sliding_window_size is {quoted(size)}")
    placing = config.get("sliding_window_layer_placing")
    everywhere = placing in (None, "all", 1) and config.get("sliding_window_layer_stride") in (
        None,
        1,
    )
    listed = config.get("sliding_window_indices")
    if listed is not None:
        everywhere = isinstance(listed, list) and listed[:layers] == [1] * layers
    if not everywhere:
        refuse(file, "a window in some of its layers", listed or placing)
    if size >= context:
        return None
    return size


def _rope_scaling(config: Config, file: str) -> dict[str, Any] | None:
    ratio = config.get("rope_condense_ratio", 1)
    said = config.get("rope_adjustments") or {}
    if not isinstance(said, Mapping):
        raise FormatError(f"{file}: rope_adjustments is {quoted(said)}")
    if "beta_fast" in said or "beta_slow" in said:
        # LitGPT 0.5.13 blends the two sets of frequencies the other way round than transformers
        raise UnsupportedModelError(
            f"{file} asks for yarn, which LitGPT computes otherwise than other programs",
            hint="convert the model that it was made from",
        )
    if "low_freq_factor" in said or "high_freq_factor" in said:
        if ratio != 1 or not all(key in said for key in LLAMA_3_KEYS):
            raise FormatError(f"{file}: rope_adjustments is {quoted(said)}, which lacks a number")
        factor, low, high, original = (said[key] for key in LLAMA_3_KEYS)
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }
    factor = said.get("factor", 1)
    for number in (factor, ratio):
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e6:
            raise FormatError(f"{file}: a factor of rotary positions is {quoted(number)}")
    # both divide the positions
    if factor * ratio == 1:
        return None
    return {"rope_type": "linear", "factor": float(factor * ratio)}
