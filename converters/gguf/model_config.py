"""GGUF's metadata as Hugging Face's config, and the names of the tensors in both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.converters.gguf.metadata import Metadata
from edgellm.errors import UnsupportedModelError
from edgellm.files.strict_json import quoted

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""GGUF's ``general.architecture``, which is also ``model_type``, and Hugging Face's class."""

OUTER: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
INNER: Mapping[str, str] = {
    "self_attn.qkv_proj": "attn_qkv",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_gate_up",
}
"""Hugging Face's names of a layer's parts, and GGUF's."""

OUTER_PATHS = {theirs: ours for ours, theirs in OUTER.items()}
INNER_PATHS = {theirs: ours for ours, theirs in INNER.items()}
LAYER_NAME = re.compile(r"blk\.(?P<index>0|[1-9][0-9]*)\.(?P<path>\w+)")

PERMUTED = ("self_attn.q_proj", "self_attn.k_proj")
"""Matrices, and biases, whose heads' rows GGUF's llama has in Meta's order (``rope_permutation``).

Its qwen2 and qwen3 have them in Hugging Face's.
"""

UNSUPPORTED_KEYS = (
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attention.clamp_kqv",
)
"""Metadata that change the computation of a model in ways that edgellm does not run."""


def gguf_name(name: str) -> str:
    """Return GGUF's name of a tensor: ``blk.3.attn_q.weight`` of layer 3's ``q_proj``."""
    path, _, part = name.rpartition(".")
    if path in OUTER:
        return f"{OUTER[path]}.{part}"
    _, _, index, inner = path.split(".", 3)
    return f"blk.{index}.{INNER[inner]}.{part}"


def huggingface_name(name: str, architecture: str = "llama") -> str | None:
    """Return the inverse of ``gguf_name``; None: no model of these kinds has such a tensor."""
    if architecture == "phi3":
        # which has gate and up in one, under the second's name
        name = name.replace(".ffn_up.", ".ffn_gate_up.")
    path, _, part = name.rpartition(".")
    if path in OUTER_PATHS:
        return f"{OUTER_PATHS[path]}.{part}"
    layer = LAYER_NAME.fullmatch(path)
    if layer is None or layer["path"] not in INNER_PATHS:
        return None
    return f"model.layers.{layer['index']}.{INNER_PATHS[layer['path']]}.{part}"


def is_permuted(architecture: str, name: str) -> bool:
    """Return whether GGUF has the rows of a tensor (Hugging Face's name) in Meta's order."""
    path, _, _ = name.rpartition(".")
    return architecture == "llama" and path.endswith(PERMUTED)


def read_config(metadata: Metadata, vocab_size: int, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return Hugging Face's config, save for ``rope_scaling``.

    Args:
        metadata: the file's.
        vocab_size: rows of the embedding.
        tensors: the model's tensors by Hugging Face's name; only the names are looked at.

    Raises:
        UnsupportedModelError: another kind of model.
        FormatError: a number is missing or no number.
    """
    architecture = metadata.text("general.architecture")
    if architecture is None or architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            f"the GGUF file's architecture {quoted(architecture)} is not supported",
            hint=f"edgellm runs: {known}",
        )
    numbers = ModelNumbers(metadata, architecture)
    if numbers.integer("expert_count", 0):
        raise UnsupportedModelError(
            "the GGUF file holds a mixture of experts, which is not supported"
        )
    hidden = numbers.integer("embedding_length")
    heads = numbers.integer("attention.head_count")
    head_dim = numbers.integer("attention.key_length", hidden // max(1, heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if numbers.integer(key, head_dim) != head_dim:
            raise UnsupportedModelError(
                f"{architecture}.{key} is not {head_dim}, the size of a head: this is not supported"
            )
    for key in UNSUPPORTED_KEYS:
        if numbers.key(key) in metadata:
            raise UnsupportedModelError(
                f"the GGUF file sets {architecture}.{key}, which edgellm does not know"
            )
    return {
        "architectures": [ARCHITECTURES[architecture]],
        "model_type": architecture,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": numbers.integer("feed_forward_length"),
        "num_hidden_layers": numbers.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": numbers.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": numbers.integer("context_length", 2048),
        "rms_norm_eps": numbers.real("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": numbers.real("rope.freq_base", 10000.0),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in tensors,
        "mlp_bias": "model.layers.0.mlp.gate_proj.bias" in tensors,
    }


class ModelNumbers:
    """The numbers that metadata give for one architecture."""

    def __init__(self, metadata: Metadata, architecture: str) -> None:
        self.metadata = metadata
        self._architecture = architecture

    def key(self, name: str) -> str:
        """Return the whole key of a name: ``llama.block_count``."""
        return f"{self._architecture}.{name}"

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; a list of one for each layer must be the same number all over."""
        return self.metadata.uniform_integer(self.key(name), default)

    def real(self, name: str, default: float) -> float:
        """Return a number that is stored as float32."""
        return self.metadata.real(self.key(name), default)
