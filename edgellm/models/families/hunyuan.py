"""The decoder block of Hunyuan's dense models (Tencent's Hunyuan 0.5B to 7B)."""

# B sequences of one token each, L new tokens, H query heads, G key/value heads, D head size

from __future__ import annotations

import mlx.core as mx

from edgellm.checkpoint.layer_config import LayerConfig
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.models.llama import Attention, Block


class HunyuanAttention(Attention):
    """Attention whose heads of queries and keys are normalized after they have turned."""

    def positioned(self, heads: mx.array, offset: int | mx.array) -> mx.array:
        """Return queries and keys (B, H + G, L, D) turned by their position, and normalized."""
        return self.normalize(self.rotate(heads, offset))


class HunyuanBlock(Block):
    """LLaMA's layer with that attention."""

    attention = HunyuanAttention

    @classmethod
    def attention_scale(cls, config: ModelConfig, layer: LayerConfig) -> float:
        """Return the scores' factor: of what the rotation multiplies, the norms leave nothing."""
        return float(config.head_dim**-0.5)
