"""The numbers of a model, read from either form of ``config.json`` and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgellm.checkpoint.dialects.config_values import read_flag, read_number, read_real, token_ids
from edgellm.checkpoint.dialects.families import DIALECTS
from edgellm.checkpoint.dialects.rotary import (
    RopeScaling,
    read_local_rotary,
    read_rotary,
    read_rotary_dim,
)
from edgellm.checkpoint.dialects.wrappers import WRAPPERS, text_part
from edgellm.checkpoint.family_configs import FAMILIES, Family, Norms, QueryKeyNorm
from edgellm.checkpoint.layer_config import LayerConfig, Rotary, read_layers
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.settings import MAX_CONTEXT, is_int

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Keys that make a model a mixture of experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonConfig:
    """The numbers of any model, whoever computes it; called as Hugging Face calls them."""

    model_type: str
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(CommonConfig):
    """The numbers of a model that edgellm computes.

    Attributes:
        rotary_dim: features of a head that positions rotate, its first ones.
        qkv_bias: whether the products of queries, keys and values have biases.
        output_bias: whether attention's output product has one.
        mlp_bias: whether the three products of the feed-forward part have biases.
        sliding_window: tokens that the layers in ``sliding_layers`` look back over.
        sliding_layers: their numbers.
        nope_layers: the numbers of those without rotary positions.
        query_pre_attn_scalar: the scores of attention are divided by its root; the head size, where
            a config says nothing else.
        attn_logit_softcapping: the soft cap of scores: ``cap * tanh(score / cap)``; None: no cap.
        final_logit_softcapping: that of logits.
        local_rotary: the rotary positions of ``sliding_layers``; None: as all layers have them.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rotary_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    sliding_window: int | None
    sliding_layers: frozenset[int]
    nope_layers: frozenset[int] = frozenset()
    query_pre_attn_scalar: float
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    local_rotary: Rotary | None = None
    bos_token_id: int | None = None
    eos_token_ids: frozenset[int] = field(default_factory=frozenset)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Read a config in Hugging Face's old form (``rope_theta``) or new (``rope_parameters``).

        Raises:
            UnsupportedModelError: another kind of model, activation or rotary scaling.
            FormatError: a number is missing, of the wrong kind, or impossible.
        """
        model_type = raw.get("model_type")
        family = _family(model_type)
        _refuse_foreign(raw, family)
        heads = read_number(raw, "num_attention_heads")
        hidden = read_number(raw, "hidden_size")
        key_value_heads = read_number(raw, "num_key_value_heads", default=heads)
        head_dim = read_number(raw, "head_dim", default=max(1, hidden // heads))
        layers = read_number(raw, "num_hidden_layers")
        if heads % key_value_heads:
            raise FormatError(
                f"config.json: {heads} query heads cannot share {key_value_heads} key/value heads"
            )
        if head_dim % 2:
            raise FormatError(
                f"config.json: head_dim is {head_dim}; rotary positions need an even number"
            )
        context = read_number(raw, "max_position_embeddings", default=2048)
        rotary_dim = read_rotary_dim(raw, head_dim)
        if rotary_dim != head_dim and not family.partial_rotary:
            raise UnsupportedModelError(
                f"partial_rotary_factor of a {model_type} is set",
                hint="edgellm runs heads that are rotated in part in models of type phi3",
            )
        theta, scaling = read_rotary(raw, context, rotary_dim)
        local_rotary = None
        if family.local_rope_key is not None:
            local = read_local_rotary(raw, context, rotary_dim, family.local_rope_key)
            local_rotary = Rotary(rotary_dim, *local)
        if scaling is not None and scaling.kind == "yarn":
            # as Qwen's pages have it, who wants long texts adds yarn and leaves the old number
            stretched = int(scaling.factor * scaling.original_max_position_embeddings)
            context = max(context, min(stretched, MAX_CONTEXT))
        window, sliding_layers, nope_layers = read_layers(raw, family, layers)
        attention_bias = read_flag(raw, "attention_bias", default=False)
        output_bias = read_flag(raw, family.output_bias_key, default=False)
        query_scalar = float(head_dim)
        if family.query_scalar:
            query_scalar = read_real(raw, "query_pre_attn_scalar", query_scalar, low=0.0, high=1e6)
        bos = raw.get("bos_token_id")
        vocab_size = read_number(raw, "vocab_size")
        return cls(
            model_type=str(model_type),
            hidden_size=hidden,
            intermediate_size=read_number(raw, "intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            head_dim=head_dim,
            rotary_dim=rotary_dim,
            vocab_size=vocab_size,
            rms_norm_eps=read_real(raw, "rms_norm_eps", 1e-6, low=0.0, high=1.0),
            rope_theta=theta,
            rope_scaling=scaling,
            max_position_embeddings=context,
            tie_word_embeddings=read_flag(raw, "tie_word_embeddings", default=False),
            qkv_bias=attention_bias or family.qkv_bias,
            output_bias=output_bias and not family.qkv_bias,
            mlp_bias=read_flag(raw, "mlp_bias", default=False),
            sliding_window=window,
            sliding_layers=sliding_layers,
            nope_layers=nope_layers,
            query_pre_attn_scalar=query_scalar,
            attn_logit_softcapping=_cap(raw, family.caps[0]),
            final_logit_softcapping=_cap(raw, family.caps[1]),
            local_rotary=local_rotary,
            bos_token_id=bos if is_int(bos) else None,
            eos_token_ids=token_ids(raw.get("eos_token_id"), vocab_size),
        )

    @property
    def norms(self) -> Norms:
        """The norms of a layer."""
        return FAMILIES[self.model_type].norms

    @property
    def query_key_norm(self) -> QueryKeyNorm | None:
        """The norms of queries and keys; None: they have none."""
        return FAMILIES[self.model_type].query_key_norm

    def layer(self, index: int) -> LayerConfig:
        """Return what is layer number ``index``'s own."""
        rotary: Rotary | None = Rotary(self.rotary_dim, self.rope_theta, self.rope_scaling)
        window = None
        if index in self.sliding_layers:
            window = self.sliding_window
            rotary = self.local_rotary or rotary
        if index in self.nope_layers:
            rotary = None
        return LayerConfig(window, rotary)

    def with_layers(self, numbers: Sequence[int]) -> ModelConfig:
        """Return the config of some of the layers, which are counted from 0 then."""
        places = {number: place for place, number in enumerate(numbers)}
        return replace(
            self,
            num_hidden_layers=len(numbers),
            sliding_layers=frozenset(places[n] for n in self.sliding_layers if n in places),
            nope_layers=frozenset(places[n] for n in self.nope_layers if n in places),
        )

    @property
    def usual_context(self) -> int:
        """Tokens that a text may have where nobody asks for more.

        With longrope it is the first context: for longer texts each pair turns otherwise, in all
        texts, and short ones are then not what transformers makes of them.
        """
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "longrope":
            return min(scaling.original_max_position_embeddings, self.max_position_embeddings)
        return self.max_position_embeddings

    def for_context(self, context: int) -> ModelConfig:
        """Return the config for texts of up to this many tokens."""
        if self.rope_scaling is None:
            return self
        return replace(self, rope_scaling=self.rope_scaling.for_context(context))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the unquantized shapes of a layer's tensors, by their names inside it.

        Matrices are in (out, in) order.
        """
        hidden, inner = self.hidden_size, self.intermediate_size
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (query, hidden),
            "self_attn.k_proj.weight": (key, hidden),
            "self_attn.v_proj.weight": (key, hidden),
            "self_attn.o_proj.weight": (hidden, query),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        if self.qkv_bias:
            shapes["self_attn.q_proj.bias"] = (query,)
            shapes["self_attn.k_proj.bias"] = (key,)
            shapes["self_attn.v_proj.bias"] = (key,)
        if self.output_bias:
            shapes["self_attn.o_proj.bias"] = (hidden,)
        qk_norm = self.query_key_norm
        if qk_norm is not None:
            shapes[f"{qk_norm.query}.weight"] = (query if qk_norm.whole else self.head_dim,)
            shapes[f"{qk_norm.key}.weight"] = (key if qk_norm.whole else self.head_dim,)
        if self.mlp_bias:
            shapes["mlp.gate_proj.bias"] = (inner,)
            shapes["mlp.up_proj.bias"] = (inner,)
            shapes["mlp.down_proj.bias"] = (hidden,)
        for norm in self.norms.names:
            shapes[f"{norm}.weight"] = (hidden,)
        return shapes

    def outer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the unquantized shapes of the tensors outside the layers, by their full names."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, self.hidden_size),
            "model.norm.weight": (self.hidden_size,),
        }
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes


def is_known_family(raw: Mapping[str, Any]) -> bool:
    """Return whether a config is of a family that edgellm computes, or converts to one.

    Raises FormatError for a model that sees, where its text part is not told.
    """
    text = text_part(raw)
    model_type = text.get("model_type")
    if not isinstance(model_type, str):
        return False
    dialect = DIALECTS.get(model_type)
    if dialect is not None:
        return dialect.covers(text)
    return model_type in FAMILIES


def _family(model_type: object) -> Family:
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise unknown_family(model_type)
    return family


def unknown_family(model_type: object, *, also: str | None = None) -> UnsupportedModelError:
    """Return the error about a family that is not known.

    Args:
        model_type: the model_type of its config.
        also: who does not know it either.
    """
    others = sorted({*DIALECTS, *WRAPPERS} - FAMILIES.keys())
    fact = f"model_type {repr(model_type)[:60]} is not supported"
    hint = f"edgellm runs: {', '.join(FAMILIES)}; and converts: {', '.join(others)}"
    if also is not None:
        fact += f", and {also} does not have it either"
    else:
        hint += "; families of mlx-lm also run, and mlx_lm.convert quantizes them"
    return UnsupportedModelError(fact, hint=hint)


def _refuse_foreign(raw: Mapping[str, Any], family: Family) -> None:
    """Raise UnsupportedModelError for another activation, or a mixture of experts."""
    activation = raw.get(family.activation_key, family.activations[0])
    if activation not in family.activations:
        raise UnsupportedModelError(
            f"{family.activation_key} {str(activation)[:40]!r} is not supported",
            hint=f"edgellm runs: {family.activations[0]}",
        )
    for key in EXPERT_COUNTS:
        # Hunyuan's dense models may say that there is one
        if raw.get(key) not in (None, 0, 1):
            raise UnsupportedModelError(
                f"{key} is set: a mixture of experts is not supported",
                hint=f"edgellm runs dense models of type {', '.join(FAMILIES)}",
            )


def _cap(raw: Mapping[str, Any], key: str | None) -> float | None:
    """Return a soft cap; None: there is none."""
    if key is None or raw.get(key) is None:
        return None
    return read_real(raw, key, 1.0, low=0.0, high=1e6)
