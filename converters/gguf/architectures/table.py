"""How llama.cpp says what a family says: one row an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One ``general.architecture`` of GGUF.

    Attributes:
        model_type: Hugging Face's name of the family.
        class_name: its class in transformers.
        paths: GGUF's names of a layer's parts where they are others than LLaMA's, by ours.
        pairs: whether rows of queries and keys lie in Meta's order, where ours are in halves.
        norm_offset: what the weights of norms are more by than ours.
        numbers: keys of the config by those of metadata, which may be there or not.
        partial_rotary: whether heads may be rotated in part.
    """

    model_type: str
    class_name: str
    paths: Mapping[str, str] = field(default_factory=dict)
    pairs: bool = False
    norm_offset: float = 0.0
    numbers: Mapping[str, str] = field(default_factory=dict)
    partial_rotary: bool = False


POST_NORMS: Mapping[str, str] = {
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GEMMA_NORMS: Mapping[str, str] = {**POST_NORMS, "pre_feedforward_layernorm": "ffn_norm"}

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(model_type="llama", class_name="LlamaForCausalLM", pairs=True),
    "qwen2": Architecture(model_type="qwen2", class_name="Qwen2ForCausalLM"),
    "qwen3": Architecture(model_type="qwen3", class_name="Qwen3ForCausalLM"),
    "phi3": Architecture(
        model_type="phi3",
        class_name="Phi3ForCausalLM",
        # gate and up in one, under the second's name
        paths={"mlp.gate_up_proj": "ffn_up"},
        partial_rotary=True,
    ),
    "granite": Architecture(
        model_type="granite",
        class_name="GraniteForCausalLM",
        pairs=True,
        numbers={
            "embedding_scale": "embedding_multiplier",
            "attention.scale": "attention_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
    ),
    # its rows lie in pairs here and there, which the family's dialect knows
    "ernie4_5": Architecture(model_type="ernie4_5", class_name="Ernie4_5ForCausalLM"),
    "seed_oss": Architecture(
        model_type="seed_oss",
        class_name="SeedOssForCausalLM",
        paths={"post_attention_layernorm": "post_attention_norm"},
    ),
    "smollm3": Architecture(model_type="smollm3", class_name="SmolLM3ForCausalLM", pairs=True),
    # OLMo 3, too, which has windows
    "olmo2": Architecture(model_type="olmo2", class_name="Olmo2ForCausalLM", paths=POST_NORMS),
    "exaone4": Architecture(
        model_type="exaone4", class_name="Exaone4ForCausalLM", paths=POST_NORMS
    ),
    "hunyuan-dense": Architecture(
        model_type="hunyuan_v1_dense",
        class_name="HunYuanDenseV1ForCausalLM",
        paths={
            "self_attn.query_layernorm": "attn_q_norm",
            "self_attn.key_layernorm": "attn_k_norm",
        },
    ),
    "gemma2": Architecture(
        model_type="gemma2",
        class_name="Gemma2ForCausalLM",
        paths=GEMMA_NORMS,
        norm_offset=1.0,
    ),
    "gemma3": Architecture(
        model_type="gemma3_text",
        class_name="Gemma3ForCausalLM",
        paths=GEMMA_NORMS,
        norm_offset=1.0,
    ),
}
"""Architectures by their names."""
