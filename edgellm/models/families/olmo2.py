"""The decoder block of OLMo 2 (OLMo team 2024, arXiv:2501.00656), OLMo 3 and EXAONE 4."""

# L new tokens, E hidden, H query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx

from edgellm.models.layers import LayerSpans
from edgellm.models.llama import Attention, Block, Norm


class PostNormBlock(Block):
    """A decoder layer whose norms stand behind attention and the feed-forward part."""

    def read_norms(self, norms: Mapping[str, Norm]) -> None:
        """Take the layer's norms, which are here by their names inside it."""
        self.post_attention_layernorm: Norm = norms["post_attention_layernorm"]
        self.post_feedforward_layernorm: Norm = norms["post_feedforward_layernorm"]

    def __call__(self, hidden: mx.array, spans: LayerSpans, *, many: bool = False) -> mx.array:
        """Return the hidden states (1, L, E) after this layer."""
        hidden = hidden + self.post_attention_layernorm(self.self_attn(hidden, spans))
        return hidden + self.post_feedforward_layernorm(self.mlp(hidden))


class WholeNormAttention(Attention):
    """Attention whose queries are normalized over all heads of a token, and its keys, too."""

    def project(self, x: mx.array) -> mx.array:
        """Return queries, keys and values (1, L, (H + 2G)*D) of states (1, L, E)."""
        keys_begin = self.num_heads * self.head_dim
        values_begin = keys_begin + self.num_key_value_heads * self.head_dim
        queries, keys, values = mx.split(self.qkv_proj(x), [keys_begin, values_begin], axis=-1)
        assert self.q_norm is not None, "the family has both norms"
        assert self.k_norm is not None, "the family has both norms"
        return mx.concatenate([self.q_norm(queries), self.k_norm(keys), values], axis=-1)

    def positioned(self, heads: mx.array, offset: int | mx.array) -> mx.array:
        """Return queries and keys (B, H + G, L, D), which are normalized, turned by position."""
        return self.rotate(heads, offset)


class Olmo2Block(PostNormBlock):
    """A decoder layer of OLMo 2 and 3."""

    attention = WholeNormAttention
