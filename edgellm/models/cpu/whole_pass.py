"""A few tokens through a whole model in native calls, from their ids to their logits."""

# L tokens, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from edgellm.models.cpu.block import CpuLayers
from edgellm.models.cpu.linear import CpuLinear
from edgellm.models.embedding import EmbeddingRows, Ids
from edgellm.models.layers import KeepGoing, Layers, Span
from edgellm.models.linear import DenseLinear, Linear, QuantizedLinear
from edgellm.models.model import Embedding


class CpuEmbedding:
    """An embedding (V, E) in memory, whose rows NumPy reads."""

    def __init__(self, weight: DenseLinear | QuantizedLinear) -> None:
        self.rows: EmbeddingRows = EmbeddingRows(weight)

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return the embeddings (B, L, E) of token ids (B, L)."""
        return mx.array(self.rows(np.array(tokens)))

    def close(self) -> None:
        """Do nothing: there are no files."""


class CpuPass:
    """Passes of a few tokens from their ids to their logits.

    MLX's graphs before, between and after the native calls cost a token 2 ms of 32 in 1.1B.
    """

    def __init__(self, rows: EmbeddingRows, layers: CpuLayers, head: CpuLinear) -> None:
        self._rows = rows
        self._layers = layers
        self._head = head

    def logits(self, ids: Ids, spans: Sequence[Span], *, keep_going: KeepGoing) -> mx.array | None:
        """Return the logits (L, V) after each of L tokens; None where ``keep_going`` said no."""
        return self._layers.logits(self._rows(ids), spans, self._head, keep_going=keep_going)


def make_pass(embedding: Embedding, layers: Layers, head: Linear) -> CpuPass | None:
    """Return a model's passes of a few tokens; None where a part of it is not on the kernels."""
    if not isinstance(embedding, CpuEmbedding) or not isinstance(layers, CpuLayers):
        return None
    if not isinstance(head, CpuLinear):
        return None
    return CpuPass(embedding.rows, layers, head)
