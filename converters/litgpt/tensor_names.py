"""LitGPT's and Lit-LLaMA's names, and the orders of rows in their fused matrix.

Queries, keys and values lie in one matrix. LitGPT has all queries, all keys, all values
(``attn.qkv``, from 0.5.4 on), and had the queries of a group, its key and its value, group after
group (``attn.attn``). Lit-LLaMA has the first order (``attn.c_attn``), and in a head the rows that
turn together side by side, as Meta has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgellm.converters.litgpt.model_config import LitShape

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

LAYER = re.compile(r"transformer\.h\.(0|[1-9]\d{0,3})\.(.+)")

OUTER: Mapping[str, str] = {
    "transformer.wte": "model.embed_tokens",
    "transformer.ln_f": "model.norm",
    "lm_head": "lm_head",
}
INNER: Mapping[str, str] = {
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
    "attn.proj": "self_attn.o_proj",
    "attn.norm_q": "self_attn.q_norm",
    "attn.norm_k": "self_attn.k_norm",
    "mlp.fc_1": "mlp.gate_proj",
    "mlp.fc_2": "mlp.up_proj",
    "mlp.proj": "mlp.down_proj",
    # Lit-LLaMA's
    "rms_1": "input_layernorm",
    "rms_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc1": "mlp.gate_proj",
    "mlp.c_fc2": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
"""Paths inside a layer: Hugging Face's."""

INNER_WITH_POST_NORMS: Mapping[str, str] = {
    **INNER,
    "norm_2": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}
"""The same in Gemma 2, Gemma 3 and OLMo 2."""

QKV, INTERLEAVED_QKV, LIT_LLAMA_QKV = "attn.qkv", "attn.attn", "attn.c_attn"
FUSED = (QKV, INTERLEAVED_QKV, LIT_LLAMA_QKV)
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def huggingface_paths(path: str, *, post_norms: bool = False) -> Sequence[str]:
    """Return the paths of what lies in a module of LitGPT's: one, or three of a fused one.

    An unknown path has none. ``post_norms``: whether layers have norms behind their two halves.
    """
    layer = LAYER.fullmatch(path)
    if layer is None:
        return [OUTER[path]] if path in OUTER else []
    prefix = f"model.layers.{layer[1]}."
    if layer[2] in FUSED:
        return [f"{prefix}{part}" for part in PARTS]
    names = INNER
    if post_norms:
        names = INNER_WITH_POST_NORMS
    return [f"{prefix}{names[layer[2]]}"] if layer[2] in names else []


def heads_of_parts(path: str, shape: LitShape) -> Sequence[Sequence[int]]:
    """Return the heads of a fused matrix that are queries, keys and values, in their order."""
    groups = shape.key_value_heads
    if not path.endswith(INTERLEAVED_QKV):
        end = shape.heads + groups
        return range(shape.heads), range(shape.heads, end), range(end, end + groups)
    queries = shape.heads // groups
    size = queries + 2
    return (
        [group * size + head for group in range(groups) for head in range(queries)],
        [group * size + queries for group in range(groups)],
        [group * size + queries + 1 for group in range(groups)],
    )
