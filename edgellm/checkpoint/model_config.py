"""What a model is: the shape of a LLaMA-family model, read from either form of ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.settings import MAX_CONTEXT, MAX_VOCABULARY, is_int

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3")

LIMITS: Mapping[str, tuple[int, int]] = {
    "hidden_size": (1, 1 << 17),
    "intermediate_size": (1, 1 << 19),
    "num_hidden_layers": (1, 1024),
    "num_attention_heads": (1, 4096),
    "num_key_value_heads": (1, 4096),
    "head_dim": (2, 4096),
    "vocab_size": (1, MAX_VOCABULARY),
    "max_position_embeddings": (1, MAX_CONTEXT),
}
"""What a model's numbers may be; anything outside is a damaged config, not a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched (``rope_scaling`` of a config)."""

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a LLaMA-family model, from either form of ``config.json``."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    query_key_norm: bool
    sliding_window: int | None
    sliding_layers: frozenset[int]
    bos_token_id: int | None = None
    eos_token_ids: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Read a config as Hugging Face writes it (``rope_theta``/``rope_scaling`` or ``rope_parameters``).

        Raises:
            UnsupportedModelError: another kind of model, activation or rotary scaling.
            FormatError: a number is missing, of the wrong kind, or impossible.
        """
        kind = raw.get("model_type")
        if kind not in MODEL_TYPES:
            shown = repr(kind)[:60]
            raise UnsupportedModelError(
                f"model_type {shown} is not supported",
                hint=f"edgellm runs: {', '.join(MODEL_TYPES)}",
            )
        activation = raw.get("hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise UnsupportedModelError(
                f"hidden_act {str(activation)[:40]!r} is not supported", hint="edgellm runs: silu"
            )
        for key in ("num_local_experts", "num_experts", "n_routed_experts"):
            if raw.get(key):
                raise UnsupportedModelError(
                    f"{key} is set: a mixture of experts is not supported",
                    hint=f"edgellm runs dense models of type {', '.join(MODEL_TYPES)}",
                )
        heads = _number(raw, "num_attention_heads")
        hidden = _number(raw, "hidden_size")
        key_value_heads = _number(raw, "num_key_value_heads", default=heads)
        head_dim = _number(raw, "head_dim", default=max(1, hidden // heads))
        layers = _number(raw, "num_hidden_layers")
        if heads % key_value_heads:
            raise FormatError(
                f"config.json: {heads} query heads cannot share {key_value_heads} key/value heads"
            )
        if head_dim % 2:
            raise FormatError(
                f"config.json: head_dim is {head_dim}; rotary positions need an even number"
            )
        theta, scaling = _rope(raw)
        window, sliding_layers = _window(raw, kind, layers)
        attention_bias = _flag(raw, "attention_bias", default=kind == "qwen2")
        bos = raw.get("bos_token_id")
        return cls(
            model_type=kind,
            hidden_size=hidden,
            intermediate_size=_number(raw, "intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            head_dim=head_dim,
            vocab_size=_number(raw, "vocab_size"),
            rms_norm_eps=_real(raw, "rms_norm_eps", 1e-6, low=0.0, high=1.0),
            rope_theta=theta,
            rope_scaling=scaling,
            max_position_embeddings=_number(raw, "max_position_embeddings", default=2048),
            tie_word_embeddings=_flag(raw, "tie_word_embeddings", default=False),
            qkv_bias=attention_bias or kind == "qwen2",
            output_bias=attention_bias and kind != "qwen2",
            mlp_bias=_flag(raw, "mlp_bias", default=False),
            query_key_norm=kind == "qwen3",
            sliding_window=window,
            sliding_layers=sliding_layers,
            bos_token_id=bos if is_int(bos) else None,
            eos_token_ids=token_ids(raw.get("eos_token_id")),
        )

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The unquantized shape of every tensor of one layer, by its name inside the layer, in (out, in) order."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key = (
            self.num_attention_heads * self.head_dim,
            self.num_key_value_heads * self.head_dim,
        )
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (query, hidden),
            "self_attn.k_proj.weight": (key, hidden),
            "self_attn.v_proj.weight": (key, hidden),
            "self_attn.o_proj.weight": (hidden, query),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        if self.qkv_bias:
            shapes |= {"self_attn.q_proj.bias": (query,), "self_attn.k_proj.bias": (key,)}
            shapes |= {"self_attn.v_proj.bias": (key,)}
        if self.output_bias:
            shapes["self_attn.o_proj.bias"] = (hidden,)
        if self.query_key_norm:
            shapes |= {
                "self_attn.q_norm.weight": (self.head_dim,),
                "self_attn.k_norm.weight": (self.head_dim,),
            }
        if self.mlp_bias:
            shapes |= {
                "mlp.gate_proj.bias": (inner,),
                "mlp.up_proj.bias": (inner,),
                "mlp.down_proj.bias": (hidden,),
            }
        return shapes

    def outer_shapes(self) -> dict[str, tuple[int, ...]]:
        """The unquantized shape of every tensor outside the layers, by its full name."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, self.hidden_size),
            "model.norm.weight": (self.hidden_size,),
        }
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes


def token_ids(value: object) -> frozenset[int]:
    """The token ids in a config's ``eos_token_id``: a number, a list of numbers, or nothing."""
    values: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    return frozenset(item for item in values if is_int(item) and item >= 0)


def _number(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = raw.get(name)
    if value is None:
        value = default
    low, high = LIMITS[name]
    if not is_int(value) or not low <= value <= high:
        said = "missing" if value is None else str(value)[:40]
        raise FormatError(
            f"config.json: {name} is {said}; it must be a whole number between {low} and {high}"
        )
    return value


def _real(raw: Mapping[str, Any], name: str, default: float, *, low: float, high: float) -> float:
    value = raw.get(name)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise FormatError(
            f"config.json: {name} is {str(value)[:40]}; it must be a number above {low} and up to {high}"
        )
    return float(value)


def _flag(raw: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = raw.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise FormatError(f"config.json: {name} is {str(value)[:40]}; it must be true or false")
    return value


def _rope(raw: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    both: dict[str, Any] = {}
    # transformers believes the second where both are there
    for key in ("rope_parameters", "rope_scaling"):
        value = raw.get(key)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise FormatError(f"config.json: {key} is {str(value)[:40]}; it must be an object")
        both |= {name: item for name, item in value.items() if item is not None}
    theta = _real(
        {"rope_theta": both.get("rope_theta", raw.get("rope_theta"))},
        "rope_theta",
        10000.0,
        low=0.0,
        high=1e12,
    )
    for holder in (raw, both):
        if holder.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise UnsupportedModelError(
                "partial_rotary_factor is set", hint="edgellm runs models that rotate whole heads"
            )
    kind = both.get("rope_type", both.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"rope_scaling of type {str(kind)[:40]!r} is not supported",
            hint=f"edgellm runs: {', '.join(ROPE_TYPES)}",
        )
    if kind == "default":
        return theta, None
    factor = _real(both, "factor", math.nan, low=0.0, high=1e6)
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=factor)
    low = _real(both, "low_freq_factor", math.nan, low=0.0, high=1e6)
    high = _real(both, "high_freq_factor", math.nan, low=0.0, high=1e6)
    if high <= low:
        raise FormatError(
            f"config.json: high_freq_factor {high} must be above low_freq_factor {low}"
        )
    original = both.get("original_max_position_embeddings")
    if not is_int(original) or not 1 <= original <= MAX_CONTEXT:
        raise FormatError(f"config.json: original_max_position_embeddings is {str(original)[:40]}")
    return theta, RopeScaling(
        kind="llama3",
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=original,
    )


def _window(raw: Mapping[str, Any], kind: str, layers: int) -> tuple[int | None, frozenset[int]]:
    """The window and the layers that have it; what is left out is as in transformers."""
    switched = kind in ("qwen2", "qwen3")
    window = raw.get("sliding_window", 4096)
    if (
        window is None
        or kind == "llama"
        or (switched and not _flag(raw, "use_sliding_window", default=False))
    ):
        return None, frozenset()
    if not is_int(window) or window < 1:
        raise FormatError(
            f"config.json: sliding_window is {str(window)[:40]}; it must be a whole number above 0"
        )
    types = raw.get("layer_types")
    if switched and isinstance(types, list) and len(types) == layers:
        return window, frozenset(
            index for index, item in enumerate(types) if item == "sliding_attention"
        )
    first = raw.get("max_window_layers", 28) if switched else 0
    return window, frozenset(range(first if is_int(first) and first >= 0 else 0, layers))
