"""The model families that edgellm runs: one row a ``model_type``.

A row holds what a family means beyond the numbers of its ``config.json``. The block is named by
text and imported by ``models.registry`` at its first use, so that reading a config stays light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family.

    Attributes:
        block: the class of its decoder layer, ``module:Class``.
        activations: what ``hidden_act`` may say; the block is written for it.
        qkv_bias: whether queries, keys and values have biases, and the output none, whatever the
            config says; else ``attention_bias`` decides for these three.
        output_bias_key: what decides it for the output.
        query_key_norm: whether heads of queries and keys are normalized.
        extra_norms: norms of a layer beside LLaMA's two, by their names inside it.
        partial_rotary: whether its config may say that heads are rotated in part.
        sliding_window: which layers look back over a window only: none, all by
            ``sliding_window``, or as ``use_sliding_window`` and ``layer_types`` say.
    """

    block: str = "edgellm.models.llama:Block"
    activations: tuple[str, ...] = ("silu", "swish")
    qkv_bias: bool = False
    output_bias_key: str = "attention_bias"
    query_key_norm: bool = False
    extra_norms: tuple[str, ...] = ()
    partial_rotary: bool = False
    sliding_window: Literal["none", "all", "switched"] = "none"


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(sliding_window="all"),
    "phi3": Family(sliding_window="all", partial_rotary=True),
    "qwen2": Family(qkv_bias=True, sliding_window="switched"),
    "qwen3": Family(query_key_norm=True, sliding_window="switched"),
    "seed_oss": Family(output_bias_key="attention_out_bias"),
}
"""Families by ``model_type``."""
