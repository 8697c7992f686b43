"""Mistral's params.json as Hugging Face's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.checkpoint.dialects.rotary import FULL, SLIDING
from edgellm.converters.meta.model_config import PARAMS, MetaShape
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.settings import is_int

CONTEXTS = ("max_position_embeddings", "max_seq_len", "model_max_length")
SMALL_VOCABULARY = 32_768
"""Of the models before tekken, whose usual context is as long."""

USUAL_CONTEXT = 128_000
"""What vLLM takes where a tekken model's params.json says nothing."""

UNSUPPORTED: Mapping[str, str] = {
    "moe": "edgellm runs dense models",
    "quantization": "convert the 16-bit model, or its folder in Hugging Face's form",
    "llama_4_scaling": "edgellm does not scale queries by their place",
    "lora": "convert the model, and merge the adapter in PEFT's form",
    "q_lora_rank": "edgellm has no latent attention",
    "kv_lora_rank": "edgellm has no latent attention",
}
"""Keys of params.json that change what is computed, and the way round."""


def refuse_unsupported(params: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError for what is not a dense model of Mistral's first kind."""
    for key, hint in UNSUPPORTED.items():
        if params.get(key):
            raise UnsupportedModelError(f"{PARAMS} sets {key}", hint=hint)
    kind = params.get("model_type") or "transformer"
    if kind != "transformer":
        raise UnsupportedModelError(
            f"{PARAMS}: model_type is {quoted(kind)}", hint="edgellm runs transformers"
        )


def mistral_config(
    params: Mapping[str, Any], shape: MetaShape, *, vocabulary: int, tied: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return Hugging Face's config of a Mistral, and what to tell a person.

    Args:
        params: params.json; a number that is null counts as left out.
        shape: its sizes.
        vocabulary: rows of the embedding.
        tied: whether the head is the embedding.

    Raises:
        FormatError: a number does not fit the weights, or is none.
        UnsupportedModelError: windows of several lengths.
    """
    size = params.get("vocab_size")
    if size not in (None, -1, vocabulary):
        raise FormatError(
            f"{PARAMS}: vocab_size is {quoted(size)} and the embedding has {vocabulary} rows",
            hint="download the model again",
        )
    windows = _windows(params, shape.layers)
    window = next(filter(None, windows), None)
    context, notes = _context(params, vocabulary)
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        **shape.sizes,
        "vocab_size": vocabulary,
        "rms_norm_eps": _given(params, "norm_eps", 1e-5),
        "rope_theta": _given(params, "rope_theta", _usual_theta(window)),
        "rope_scaling": _yarn(params),
        "max_position_embeddings": context,
        "sliding_window": window,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if window is not None and None in windows:
        config |= {
            "architectures": ["MinistralForCausalLM"],
            "model_type": "ministral",
            "layer_types": [FULL if length is None else SLIDING for length in windows],
        }
    return config, notes


def _given(params: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a value of params.json, whose range is checked with the config's."""
    value = params.get(name)
    if value is None:
        return default
    return value


def _usual_theta(window: int | None) -> float:
    """Return the base of rotary frequencies where none is given, as in mistral-inference."""
    if window is None:
        return 1_000_000.0
    return 10_000.0


def _windows(params: Mapping[str, Any], layers: int) -> list[int | None]:
    """Return each layer's window; a list holds those of layers in turn.

    Raises:
        FormatError: a window is not a number.
        UnsupportedModelError: there are two of them.
    """
    for key in ("sliding_window", "_sliding_window"):
        value = params.get(key)
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(item is None or (is_int(item) and item > 0) for item in listed):
            raise FormatError(
                f"{PARAMS}: {key} is {quoted(value)}; it must be a whole number, null or a list",
                hint="download the model again",
            )
        if len(set(listed) - {None}) > 1:
            raise UnsupportedModelError(
                f"{PARAMS}: {key} has windows of several lengths",
                hint="edgellm runs models whose layers look back as far, or over all tokens",
            )
        if any(listed):
            return [listed[layer % len(listed)] for layer in range(layers)]
    return [None] * layers


def _context(params: Mapping[str, Any], vocabulary: int) -> tuple[int, list[str]]:
    """Return the longest text, and a word about it where nothing is said."""
    for key in CONTEXTS:
        value = params.get(key)
        if value is not None:
            return value, []
    context = USUAL_CONTEXT
    if vocabulary <= SMALL_VOCABULARY:
        context = SMALL_VOCABULARY
    return context, [f"{PARAMS} does not say how long a text may be: {context} tokens are taken"]


def _yarn(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the rotary scaling under Hugging Face's names, as in vLLM."""
    yarn = params.get("yarn")
    if not yarn:
        return None
    if not isinstance(yarn, Mapping):
        raise FormatError(
            f"{PARAMS}: yarn is {quoted(yarn)}; it must be an object",
            hint="download the model again",
        )
    scaling = {
        "rope_type": "yarn",
        "factor": yarn.get("factor"),
        "original_max_position_embeddings": yarn.get("original_max_position_embeddings"),
        "beta_fast": yarn.get("beta"),
        "beta_slow": yarn.get("alpha"),
    }
    if yarn.get("apply_scale") is False:
        scaling["attention_factor"] = 1.0
    return {key: value for key, value in scaling.items() if value is not None}
