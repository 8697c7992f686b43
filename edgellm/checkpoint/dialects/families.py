"""Families that are LLaMA under another name, with defaults or numbers of their own.

They mean what transformers 5.24 computes; nothing of them is left when a model runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgellm.checkpoint.dialects.adapt import (
    adapt_ernie,
    adapt_gemma,
    adapt_helium,
    adapt_hunyuan,
    adapt_hybrid,
    adapt_iquest,
    adapt_phi3,
    is_attention_alone,
)
from edgellm.checkpoint.dialects.config_values import head_dim_of, read_number, read_real

Config = dict[str, Any]

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
MULTIPLIERS = (
    "embedding_multiplier",
    "attention_multiplier",
    "residual_multiplier",
    "logits_scaling",
)
"""Granite's numbers beside the weights, all 1 where they are left out."""

VALUE_HEAD = "v_head."
"""The beginning of names of tensors that training with rewards (PPO) leaves beside a model."""

GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a family says what LLaMA says.

    Attributes:
        runs_as: the ``model_type`` that it becomes.
        defaults: numbers that its config may leave out.
        made_of: by a path inside a layer, the paths of ours that lie in it, one below the other.
        pairs: whether rows of queries and keys that turn together are neighbours, as in Meta's
            files, and not half a head apart.
        multiplied: whether it has ``MULTIPLIERS``.
        unread: keys that mean nothing to it, whatever they say.
        adapt: changes a config further; raises where the model does what edgellm does not.
        covers: whether a config of this family is of a model that edgellm may run.
    """

    runs_as: str = "llama"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    made_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: bool = False
    multiplied: bool = False
    unread: tuple[str, ...] = ()
    adapt: Callable[[Config], None] = lambda _: None
    covers: Callable[[Mapping[str, Any]], bool] = lambda _: True


GEMMA: Config = {
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
"""What configs of Gemma 2 and 3 may leave out, and published ones do."""

DIALECTS: Mapping[str, Dialect] = {
    "ernie4_5": Dialect(
        defaults={"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "head_dim": 128}
        | {"tie_word_embeddings": True, "num_key_value_heads": 2},
        pairs=True,
        adapt=adapt_ernie,
    ),
    "gemma2": Dialect(
        runs_as="gemma2",
        defaults=GEMMA
        | {"vocab_size": 256000, "max_position_embeddings": 8192}
        | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        adapt=adapt_gemma,
    ),
    "gemma3_text": Dialect(
        runs_as="gemma3_text",
        defaults=GEMMA
        | {"vocab_size": 262208, "max_position_embeddings": 131072}
        | {"rope_theta": 1e6, "rope_local_base_freq": 10000.0},
        adapt=adapt_gemma,
    ),
    "granite": Dialect(multiplied=True),
    "granitemoehybrid": Dialect(
        made_of={
            "shared_mlp.input_linear": GATE_UP,
            "shared_mlp.output_linear": ("mlp.down_proj",),
        },
        multiplied=True,
        adapt=adapt_hybrid,
        covers=is_attention_alone,
    ),
    "helium": Dialect(
        defaults={"rope_theta": 100000.0, "rms_norm_eps": 1e-8, "head_dim": 128},
        pairs=True,
        adapt=adapt_helium,
    ),
    "iquestcoder": Dialect(
        defaults={"head_dim": 128, "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
        adapt=adapt_iquest,
    ),
    "phi3": Dialect(
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
        made_of={
            "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "mlp.gate_up_proj": GATE_UP,
        },
        unread=("attention_bias", "mlp_bias"),
        adapt=adapt_phi3,
    ),
    "hunyuan_v1_dense": Dialect(
        runs_as="hunyuan_v1_dense",
        defaults={"rms_norm_eps": 1e-5},
        unread=("mlp_bias",),
        adapt=adapt_hunyuan,
    ),
    "olmo2": Dialect(runs_as="olmo2", defaults={"rms_norm_eps": 1e-5}, unread=("mlp_bias",)),
    "olmo3": Dialect(
        runs_as="olmo3",
        defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0},
        unread=("mlp_bias",),
    ),
    "exaone4": Dialect(
        runs_as="exaone4",
        defaults={"rms_norm_eps": 1e-5, "num_key_value_heads": 32},
        unread=("attention_bias", "mlp_bias"),
    ),
    "seed_oss": Dialect(
        runs_as="seed_oss",
        defaults={"attention_bias": True, "head_dim": 128, "num_key_value_heads": 8},
    ),
    "smollm3": Dialect(
        runs_as="smollm3",
        defaults={"rope_theta": 2000000.0, "num_key_value_heads": 4, "sliding_window": None}
        | {"max_position_embeddings": 32768, "tie_word_embeddings": True},
    ),
    "xverse": Dialect(),
}
"""Dialects by ``model_type``."""


def in_llamas_words(config: Mapping[str, Any], dialect: Dialect) -> Config:
    """Return a config as the family that it runs as would have it, without what is not read."""
    said: Config = {**dialect.defaults, **config, "model_type": dialect.runs_as}
    dialect.adapt(said)
    if said["model_type"] in ARCHITECTURES:
        said["architectures"] = [ARCHITECTURES[said["model_type"]]]
    unread = (*MULTIPLIERS, *dialect.unread)
    return {key: value for key, value in said.items() if key not in unread}


def row_counts(config: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the rows of each matrix that may lie in another, by its path inside a layer."""
    heads = read_number(config, "num_attention_heads")
    head_dim = head_dim_of(config)
    key = read_number(config, "num_key_value_heads", heads) * head_dim
    inner = read_number(config, "intermediate_size")
    return {
        "self_attn.q_proj": heads * head_dim,
        "self_attn.k_proj": key,
        "self_attn.v_proj": key,
        "mlp.gate_proj": inner,
        "mlp.up_proj": inner,
        "mlp.down_proj": read_number(config, "hidden_size"),
    }


def factors(config: Mapping[str, Any], *, own_head: bool) -> Mapping[str, float]:
    """Return what Granite's tensors are multiplied by, so that nothing else has to be.

    Args:
        config: as it is stored.
        own_head: whether a head is stored.

    Returns:
        Factors by the end of a path: ``self_attn.q_proj`` of every layer, ``model.norm``.
    """
    embedding, attention, residual, logits = (
        read_real(config, name, 1.0, low=0.0, high=1e6) for name in MULTIPLIERS
    )
    found = {
        "model.embed_tokens": embedding,
        # scores of a LLaMA are divided by the root of the head size
        "self_attn.q_proj": attention * math.sqrt(head_dim_of(config)),
        "self_attn.o_proj": residual,
        "mlp.down_proj": residual,
    }
    if own_head:
        return found | {"lm_head": 1 / logits}
    # the embedding serves as the head, too, and has its factor there
    return found | {"model.norm": 1 / (logits * embedding)}
