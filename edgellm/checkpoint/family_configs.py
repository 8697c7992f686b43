"""The model families that edgellm runs: one row a ``model_type``.

A row holds what a family means beyond the numbers of its ``config.json``. The block is named by
text and imported by ``models.registry`` at its first use, so that reading a config stays light.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """The norms of a decoder layer, by their names inside it; None where there is none.

    Attributes:
        before_attention: of what attention reads.
        after_attention: of what it adds to the hidden states.
        before_mlp: of what the feed-forward part reads.
        after_mlp: of what it adds.
    """

    before_attention: str | None = None
    after_attention: str | None = None
    before_mlp: str | None = None
    after_mlp: str | None = None

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        norms = (self.before_attention, self.after_attention, self.before_mlp, self.after_mlp)
        return [norm for norm in norms if norm is not None]


PRE_NORM = Norms(before_attention="input_layernorm", before_mlp="post_attention_layernorm")
"""LLaMA's."""

POST_NORM = Norms(
    after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm"
)
"""OLMo 2's."""


GEMMA_NORMS = Norms(
    before_attention="input_layernorm",
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)
"""Gemma 2's and 3's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryKeyNorm:
    """The norms of queries and keys.

    Attributes:
        query: the name inside a layer of the one of queries.
        key: of the one of keys.
        whole: whether the heads of a token are normalized together, and not each by itself.
        after_rotation: whether they are rotated first.
    """

    query: str = "self_attn.q_norm"
    key: str = "self_attn.k_norm"
    whole: bool = False
    after_rotation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family.

    Attributes:
        block: the class of its decoder layer, ``module:Class``.
        activations: what ``activation_key`` may say; the block is written for it.
        activation_key: the config's key for it.
        qkv_bias: whether queries, keys and values have biases, and the output none, whatever the
            config says; else ``attention_bias`` decides for these three.
        output_bias_key: what decides it for the output.
        norms: of a layer.
        norm_offset: what is added to the weights of all norms.
        query_key_norm: the norms of queries and keys; None: they have none.
        query_scalar: whether ``query_pre_attn_scalar``, and not the head size, scales the scores.
        scaled_embedding: whether embeddings are multiplied by the root of the hidden size.
        caps: the config's keys of soft caps, of attention's scores and of logits; None: the family
            has no such cap, whatever its config says.
        partial_rotary: whether its config may say that heads are rotated in part.
        sliding_window: which layers look back over a window only: none; all by
            ``sliding_window``; as ``use_sliding_window`` and ``layer_types`` say; or as
            ``layer_types`` or ``sliding_window_pattern`` say.
        full_every: the ``sliding_window_pattern`` where none is said: every that many layers, one
            looks back over all tokens.
        nope: which layers have no rotary positions (NoPE): none; those that ``no_rope_layers`` or
            ``no_rope_layer_interval`` say; or where some layers have a window, the others.
        local_rope_key: the key of the rotary base of layers with a window, whose frequencies are
            then never scaled; None: they turn as all layers do.
    """

    block: str = "edgellm.models.llama:Block"
    activations: tuple[str, ...] = ("silu", "swish")
    activation_key: str = "hidden_act"
    qkv_bias: bool = False
    output_bias_key: str = "attention_bias"
    norms: Norms = PRE_NORM
    norm_offset: float = 0.0
    query_key_norm: QueryKeyNorm | None = None
    query_scalar: bool = False
    scaled_embedding: bool = False
    caps: tuple[str | None, str | None] = (None, None)
    partial_rotary: bool = False
    sliding_window: Literal["none", "all", "switched", "typed"] = "none"
    full_every: int = 4
    nope: Literal["none", "listed", "full"] = "none"
    local_rope_key: str | None = None


WHOLE_NORM = QueryKeyNorm(whole=True)

_GEMMA2 = Family(
    block="edgellm.models.families.gemma:GemmaBlock",
    activations=("gelu_pytorch_tanh",),
    activation_key="hidden_activation",
    norms=GEMMA_NORMS,
    norm_offset=1.0,
    query_scalar=True,
    scaled_embedding=True,
    caps=("attn_logit_softcapping", "final_logit_softcapping"),
    sliding_window="typed",
    full_every=2,
)

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(sliding_window="all"),
    # where no layer_types are said, all of them have the window
    "ministral": Family(sliding_window="typed", full_every=1024),
    "phi3": Family(sliding_window="all", partial_rotary=True),
    "qwen2": Family(qkv_bias=True, sliding_window="switched"),
    "qwen3": Family(query_key_norm=QueryKeyNorm(), sliding_window="switched"),
    "gemma2": _GEMMA2,
    "gemma3_text": replace(
        _GEMMA2,
        query_key_norm=QueryKeyNorm(),
        caps=(None, "final_logit_softcapping"),
        full_every=6,
        local_rope_key="rope_local_base_freq",
    ),
    "seed_oss": Family(output_bias_key="attention_out_bias"),
    "olmo2": Family(
        block="edgellm.models.families.olmo2:Olmo2Block", norms=POST_NORM, query_key_norm=WHOLE_NORM
    ),
    "olmo3": Family(
        block="edgellm.models.families.olmo2:Olmo2Block",
        norms=POST_NORM,
        query_key_norm=WHOLE_NORM,
        sliding_window="typed",
        local_rope_key="rope_theta",
    ),
    "exaone4": Family(
        block="edgellm.models.families.olmo2:PostNormBlock",
        norms=POST_NORM,
        query_key_norm=QueryKeyNorm(),
        sliding_window="typed",
        nope="full",
    ),
    "hunyuan_v1_dense": Family(
        block="edgellm.models.families.hunyuan:HunyuanBlock",
        query_key_norm=QueryKeyNorm(
            query="self_attn.query_layernorm", key="self_attn.key_layernorm", after_rotation=True
        ),
    ),
    "smollm3": Family(sliding_window="switched", nope="listed"),
}
"""Families by ``model_type``."""
