"""Logits of states, by the output matrix here or by rows of it on all machines."""

# L tokens, E hidden, V vocabulary

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from edgellm.distributed.parts.rows import RowLayers
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.kernels.exchange.gather import Bounds
from edgellm.models.cpu.linear import MAX_CALL_TOKENS, CpuLinear
from edgellm.models.cpu.row_block import Rows
from edgellm.models.cpu.whole_pass import CpuEmbedding
from edgellm.models.embedding import EmbeddingRows, Ids
from edgellm.models.layers import KeepGoing, Span
from edgellm.models.model import Model

LOGIT_ROWS = 64
"""Tokens whose logits are computed and gathered at once: those of many take much memory."""


class GatheredHead:
    """Norm and output matrix, of which each machine has some rows: (..., E) to (..., V).

    Args:
        layers: of which each machine has rows, too.
        out_features: tokens of the vocabulary.
    """

    def __init__(self, layers: GatheredLayers, out_features: int) -> None:
        self._layers = layers
        self.out_features: int = out_features

    def __call__(self, x: mx.array) -> mx.array:
        """Return the logits (..., V) of states (..., E). Raises MachineError."""
        inputs: Rows = np.array(x.astype(mx.float32), copy=False).reshape(-1, x.shape[-1])
        parts = [self._layers.logits(part) for part in _calls(inputs, self._layers.max_exact_rows)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return mx.array(whole.reshape(*x.shape[:-1], self.out_features))


def _calls(inputs: Rows, max_exact_rows: int) -> list[Rows]:
    """Return rows (L, E) in parts, each of few tokens or of many as the kernels would take it."""
    parts = []
    for begin in range(0, len(inputs), MAX_CALL_TOKENS):
        call = inputs[begin : begin + MAX_CALL_TOKENS]
        count = max(1, len(call) // max(LOGIT_ROWS, max_exact_rows + 1))
        parts += np.array_split(call, count)
    return parts


def gather_head(model: Model, local: RowLayers, layers: GatheredLayers, own: Bounds) -> None:
    """Let a model's logits come from rows of the output matrix on all machines.

    Args:
        model: with a tied output matrix as a whole, or this machine's rows of it alone.
        local: the layers here, which get these rows.
        layers: the layers of all machines.
        own: the rows of this machine.
    """
    head = model.head
    assert isinstance(head, CpuLinear), "another one is not shared"
    local.head = head.part(*own) if head.out_features > own[1] - own[0] else head
    model.head = GatheredHead(layers, model.config.vocab_size)


class GatheredPass:
    """Passes of a few tokens from their ids to their logits, through rows on all machines.

    Args:
        rows: of the embedding.
        layers: of which each machine has rows.
        head: norm and output matrix; None: each machine has rows of it.
    """

    def __init__(self, rows: EmbeddingRows, layers: GatheredLayers, head: CpuLinear | None) -> None:
        self._rows = rows
        self._layers = layers
        self._head = head

    def logits(self, ids: Ids, spans: Sequence[Span], *, keep_going: KeepGoing) -> mx.array | None:
        """Return the logits (L, V) after each of L tokens; None where ``keep_going`` said no."""
        head, rows = self._head, self._rows(ids)
        after = self._layers.pass_rows(rows, spans, keep_going, wants_logits=head is None)
        if after is None:
            return None
        return mx.array(after if head is None else head.rows(after))


def make_gathered_pass(model: Model, layers: GatheredLayers) -> GatheredPass | None:
    """Return a model's passes of a few tokens; None where a part of it is not on the kernels."""
    embedding, head = model.embed_tokens, model.head
    if not isinstance(embedding, CpuEmbedding):
        return None
    if isinstance(head, GatheredHead):
        return GatheredPass(embedding.rows, layers, None)
    return GatheredPass(embedding.rows, layers, head) if isinstance(head, CpuLinear) else None
