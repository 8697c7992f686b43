"""What a model needs in memory, from its checkpoint alone."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.checkpoint.buffer import PAGE
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.kv_cache.cache import storage_tokens


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a model needs, in bytes, from its checkpoint alone."""

    layers: tuple[int, ...]
    embedding: int
    embedding_row: int
    norm: int
    head: int
    tied: bool
    cache_per_token: int
    windows: tuple[int | None, ...]
    item: int
    hidden_per_token: int
    chunk_per_token: int
    scores_per_pair: int
    max_context: int
    draft: MemoryEstimate | None = None
    """What a draft model needs beside it, all of it in memory."""

    def cache(self, context: int) -> int:
        """Bytes of all KV caches for ``context`` tokens."""
        each = self.cache_per_token // len(self.layers)
        return sum(
            each * storage_tokens(context, window if window and window < context else None)
            for window in self.windows
        )

    def prompt(self, context: int) -> int:
        """Bytes of all that grows with the context: the KV caches, and a prompt's hidden states before and after a layer."""
        return self.cache(context) + self.draft_cache(context) + 2 * context * self.hidden_per_token

    def draft_cache(self, context: int) -> int:
        """Bytes of the draft's KV caches."""
        return self.draft.cache(min(context, self.draft.max_context)) if self.draft else 0

    @property
    def draft_weights(self) -> int:
        """Bytes of the draft's weights."""
        return self.draft.weights if self.draft else 0

    def chunk(self, chunk: int, context: int) -> int:
        """Bytes of what one layer, the draft's included, makes of a prefill chunk, at the end of the context."""
        own = min(chunk, context) * (self.chunk_per_token + context * self.scores_per_pair)
        return (
            max(own, self.draft.chunk(chunk, min(context, self.draft.max_context)))
            if self.draft
            else own
        )

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return self.embedding + self.norm + self.head + sum(self.layers)

    @property
    def outer(self) -> int:
        """Bytes of the weights outside the layers that are always in memory."""
        return self.norm + (self.embedding if self.tied else self.head)


def windows_of(config: ModelConfig, window: int | None) -> list[int | None]:
    """The tokens that each layer looks back over, by the model or by the setting ``window``; None: all of them."""
    windows: list[int | None] = []
    for index in range(config.num_hidden_layers):
        own = config.sliding_window if index in config.sliding_layers else None
        windows.append(min(filter(None, (own, window)), default=None))
    return windows


def needs_of(
    checkpoint: Checkpoint,
    *,
    item: int,
    window: int | None,
    fused_attention: bool,
    kv_bytes_per_token: int | None = None,
) -> MemoryEstimate:
    """What a checkpoint needs.

    Args:
        checkpoint: the model.
        item: bytes of an activation.
        window: the tokens that attention is limited to by setting.
        fused_attention: whether attention runs without the matrix of scores (H, L, S) in memory.
        kept_bytes: of a token in one layer's KV cache; None: of numbers like the activations.
    """
    config = checkpoint.config
    each = (
        2 * config.num_key_value_heads * config.head_dim * item
        if kv_bytes_per_token is None
        else kv_bytes_per_token
    )
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    table = checkpoint.embed_tokens
    return MemoryEstimate(
        layers=tuple(_slot_bytes(layer.layout.nbytes) for layer in checkpoint.layers),
        embedding=_slot_bytes(table.layout.nbytes),
        embedding_row=table.nbytes // config.vocab_size,
        norm=_slot_bytes(checkpoint.norm.layout.nbytes),
        head=_slot_bytes(checkpoint.lm_head.layout.nbytes) if checkpoint.lm_head else 0,
        tied=checkpoint.lm_head is None,
        cache_per_token=each * config.num_hidden_layers,
        windows=tuple(windows_of(config, window)),
        item=item,
        hidden_per_token=config.hidden_size * item,
        chunk_per_token=item
        * (3 * config.hidden_size + 2 * heads * config.head_dim + 4 * config.intermediate_size),
        scores_per_pair=0 if fused_attention else 2 * item * config.num_attention_heads,
        max_context=config.max_position_embeddings,
    )


def _slot_bytes(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE + PAGE
