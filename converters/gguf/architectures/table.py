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
        numbers: keys of the config by those of metadata, which may be there or not.
        partial_rotary: whether heads may be rotated in part.
    """

    model_type: str
    class_name: str
    paths: Mapping[str, str] = field(default_factory=dict)
    pairs: bool = False
    numbers: Mapping[str, str] = field(default_factory=dict)
    partial_rotary: bool = False


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
}
"""Architectures by their names."""
