"""The names of a model's tensors: Hugging Face's and GGUF's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgellm.converters.gguf.architectures.table import ARCHITECTURES, Architecture

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
}
"""Hugging Face's names of a LLaMA layer's parts, and GGUF's."""

OUTER_PATHS = {theirs: ours for ours, theirs in OUTER.items()}
LAYER_NAME = re.compile(r"blk\.(?P<index>0|[1-9][0-9]*)\.(?P<path>\w+)")

ROTATED = ("self_attn.q_proj", "self_attn.k_proj")
"""Matrices, and biases, whose rows are in pairs where an architecture has it so."""


def gguf_name(name: str, architecture: str = "llama") -> str:
    """Return GGUF's name of a tensor: ``blk.3.attn_q.weight`` of layer 3's ``q_proj``."""
    path, _, part = name.rpartition(".")
    if path in OUTER:
        return f"{OUTER[path]}.{part}"
    _, _, index, inner = path.split(".", 3)
    paths = {**INNER, **ARCHITECTURES[architecture].paths}
    return f"blk.{index}.{paths[inner]}.{part}"


def huggingface_name(name: str, architecture: str = "llama") -> str | None:
    """Return the inverse of ``gguf_name``; None: no model of these kinds has such a tensor."""
    path, _, part = name.rpartition(".")
    if path in OUTER_PATHS:
        return f"{OUTER_PATHS[path]}.{part}"
    layer = LAYER_NAME.fullmatch(path)
    row = ARCHITECTURES.get(architecture, ARCHITECTURES["llama"])
    if layer is None or layer["path"] not in _inner_paths(row):
        return None
    return f"model.layers.{layer['index']}.{_inner_paths(row)[layer['path']]}.{part}"


def _inner_paths(architecture: Architecture) -> Mapping[str, str]:
    """Return our names of a layer's parts by GGUF's; an architecture's own go before LLaMA's."""
    usual = {theirs: ours for ours, theirs in INNER.items() if ours not in architecture.paths}
    return usual | {theirs: ours for ours, theirs in architecture.paths.items()}


def norm_offset(architecture: str, name: str) -> float:
    """Return what GGUF's numbers of a tensor (Hugging Face's name) are more by than ours."""
    if name.endswith("norm.weight"):
        return ARCHITECTURES[architecture].norm_offset
    return 0.0


def is_permuted(architecture: str, name: str) -> bool:
    """Return whether GGUF has the rows of a tensor (Hugging Face's name) in Meta's order."""
    path, _, _ = name.rpartition(".")
    return ARCHITECTURES[architecture].pairs and path.endswith(ROTATED)
