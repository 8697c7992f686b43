"""Meta's params.json as Hugging Face's config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.checkpoint.dialects.config_values import read_number
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted
from edgellm.settings import is_int

PARAMS = "params.json"
LLAMA_3_THETA = 500_000.0
CODE_LLAMA_THETA = 1_000_000.0


@dataclass(frozen=True, slots=True)
class MetaShape:
    """The numbers that the tensors' shapes follow from, in Hugging Face's words."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers as Hugging Face's config has them."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_dim,
        }


def shape_of(
    params: Mapping[str, Any], first_shard: Mapping[str, tuple[int, ...]], shards: int
) -> MetaShape:
    """Return the sizes that params.json gives.

    Args:
        params: the content of the file.
        first_shard: the shapes of the first shard's tensors, by Hugging Face's names.
        shards: how many there are.

    Raises:
        FormatError: a number is missing or impossible.
        UnsupportedModelError: a model with experts, or with a part for pictures.
    """
    for key in ("moe", "moe_args", "vision_chunk_size", "vision_args"):
        if params.get(key) not in (None, -1):
            raise UnsupportedModelError(
                f"{PARAMS} sets {key}", hint="edgellm runs dense models for text"
            )
    hidden = _count(params, "dim", "hidden_size")
    heads = _count(params, "n_heads", "num_attention_heads")
    if "head_dim" not in params and hidden % heads:
        raise FormatError(f"{PARAMS}: {heads} heads cannot share {hidden} numbers")
    return MetaShape(
        hidden_size=hidden,
        intermediate_size=_intermediate(params, hidden, first_shard, shards),
        layers=_count(params, "n_layers", "num_hidden_layers"),
        heads=heads,
        key_value_heads=_count(params, "n_kv_heads", "num_key_value_heads", default=heads),
        head_dim=_count(params, "head_dim", "head_dim", default=max(2, hidden // heads)),
    )


def config_of(
    params: Mapping[str, Any],
    shape: MetaShape,
    *,
    vocabulary: int,
    tied: bool,
    ends: Mapping[str, Any],
) -> dict[str, Any]:
    """Return Hugging Face's config.

    Args:
        params: params.json.
        shape: what ``shape_of`` returned.
        vocabulary: rows of the embedding: params.json may say -1.
        tied: whether the head is the embedding.
        ends: bos_token_id and eos_token_id, from the tokenizer.
    """
    size = params.get("vocab_size", -1)
    if size not in (-1, vocabulary):
        raise FormatError(
            f"{PARAMS}: vocab_size is {quoted(size)} and the embedding has {vocabulary} rows"
        )
    theta = params.get("rope_theta", 10_000.0)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        **shape.sizes,
        "vocab_size": vocabulary,
        "rms_norm_eps": params.get("norm_eps", 1e-5),
        "rope_theta": theta,
        "max_position_embeddings": _positions(params, shape, theta),
        "tie_word_embeddings": tied,
        **ends,
    }
    if params.get("sliding_window"):
        config |= {
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "sliding_window": params["sliding_window"],
        }
    if params.get("use_scaled_rope"):
        factor = 8.0
        if tied:  # Llama 3.2
            factor = 32.0
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": params.get("rope_scaling_factor") or factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": params.get("rope_high_freq_factor") or 4.0,
            "original_max_position_embeddings": 8192,
        }
    return config


def _intermediate(
    params: Mapping[str, Any], hidden: int, first_shard: Mapping[str, tuple[int, ...]], shards: int
) -> int:
    """Return the width of the feed-forward part.

    It is named, computed as Meta's code does, or else the first layer's own.
    """
    if params.get("hidden_dim") is not None:  # Mistral's files
        return _count(params, "hidden_dim", "intermediate_size")
    if "multiple_of" in params:
        multiple = params["multiple_of"]
        factor = params.get("ffn_dim_multiplier") or 1.0
        if not is_int(multiple) or not 1 <= multiple <= 1 << 16:
            raise FormatError(f"{PARAMS}: multiple_of is {quoted(multiple)}")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < 100:
            raise FormatError(f"{PARAMS}: ffn_dim_multiplier is {quoted(factor)}")
        # two thirds of four times the width, rounded up to the multiple (llama/model.py)
        width = int(factor * int(2 * 4 * hidden / 3))
        return multiple * -(-width // multiple)
    shape = first_shard.get("model.layers.0.mlp.gate_proj.weight", ())
    if len(shape) != 2:
        raise FormatError(f"{PARAMS} says nothing of the feed-forward width")
    return shape[0] * shards


def _positions(params: Mapping[str, Any], shape: MetaShape, theta: object) -> int:
    """Return the context a model was trained for, which most params.json do not name."""
    for key in ("max_seq_len", "max_position_embeddings"):
        if key in params:
            return _count(params, key, "max_position_embeddings")
    if params.get("use_scaled_rope"):
        return 131_072
    if theta == LLAMA_3_THETA:
        return 8192
    if theta == CODE_LLAMA_THETA:
        return 16_384
    # Llama 1 has 2,048; only it has an epsilon of 1e-6, or 64 heads that share nothing (65B).
    large = shape.heads == 64 and shape.key_value_heads == 64
    if large or params.get("norm_eps") == 1e-6:
        return 2048
    return 4096


def _count(params: Mapping[str, Any], name: str, limit: str, default: int | None = None) -> int:
    """Return a whole number of params.json inside a limit of config.json's keys."""
    return read_number(params, name, default, limit=limit, file=PARAMS)
