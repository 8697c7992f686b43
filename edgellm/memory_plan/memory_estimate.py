"""A model's needs in memory, from its checkpoint alone: weights, KV caches, activations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

from edgellm.checkpoint.buffer import DTYPES, PAGE
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.kv_cache.cache import storage_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """A model's needs in memory, in bytes.

    Attributes:
        layer_bytes: weights of each layer, in a buffer of their own.
        embedding_bytes: bytes of the token embedding.
        embedding_row_bytes: bytes of one token's row of it.
        norm_bytes: bytes of the final norm.
        lm_head_bytes: bytes of the output matrix; 0 where it is the embedding.
        tied: whether the embedding is the output matrix.
        layer_kv_bytes: bytes of a token in one layer's KV caches, of which beams have one each.
        windows: tokens that each layer looks back over; None: all.
        hidden_bytes: bytes of a token's hidden states that are held from a layer to the next one.
        layer_activation_bytes: bytes of what a layer makes of one token.
        score_bytes: bytes of a query's scores for one key; 0 where attention never holds them.
        max_context: tokens that the model was made for.
        converted_bytes: bytes of weights that MLX converts for its products, at most.
        adapter_bytes: bytes of an adapter's numbers, which are always in memory.
        draft: of a draft model beside it, all of whose weights are in memory.
    """

    layer_bytes: tuple[int, ...]
    embedding_bytes: int
    embedding_row_bytes: int
    norm_bytes: int
    lm_head_bytes: int
    tied: bool
    layer_kv_bytes: int
    windows: tuple[int | None, ...]
    hidden_bytes: int
    layer_activation_bytes: int
    score_bytes: int
    max_context: int
    converted_bytes: int = 0
    adapter_bytes: int = 0
    draft: MemoryEstimate | None = None

    def without_outer(self) -> MemoryEstimate:
        """Return the needs of the layers alone, where the rest of the model is elsewhere."""
        return replace(
            self,
            embedding_bytes=0,
            embedding_row_bytes=0,
            norm_bytes=0,
            lm_head_bytes=0,
            tied=False,
        )

    def without_embedding(self) -> MemoryEstimate:
        """Return the needs of layers, norm and output matrix, where the embedding is elsewhere."""
        return replace(self, embedding_bytes=0, embedding_row_bytes=0)

    @property
    def streams(self) -> bool:
        """Whether layers can be read again for every token."""
        return True

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights; the draft's and the adapter's are not among them."""
        outer = self.embedding_bytes + self.norm_bytes + self.lm_head_bytes
        return outer + sum(self.layer_bytes)

    @property
    def outer_bytes(self) -> int:
        """Bytes of the final norm and the output matrix, which are always in memory."""
        output = self.embedding_bytes if self.tied else self.lm_head_bytes
        return self.norm_bytes + output

    @property
    def draft_weight_bytes(self) -> int:
        """Bytes of the draft's weights."""
        return self.draft.weight_bytes if self.draft else 0

    def kv_bytes(self, context: int) -> int:
        """Return the bytes of all KV caches for ``context`` tokens."""
        tokens = 0
        for window in self.windows:
            # a window that would hold the whole context is none
            narrow = window is not None and window < context
            tokens += storage_tokens(context, window if narrow else None)
        return tokens * self.layer_kv_bytes

    def draft_kv_bytes(self, context: int) -> int:
        """Return the bytes of the draft's KV caches; it looks back over its own context at most."""
        if self.draft is None:
            return 0
        return self.draft.kv_bytes(min(context, self.draft.max_context))

    def prefill_bytes(self, context: int, *, resident: bool) -> int:
        """Return the bytes of all that grows with a prompt of ``context`` tokens.

        Those are the KV caches, and hidden states: a paged model sends the whole prompt through a
        layer before it reads the next one, where a resident one has a chunk on its way.
        """
        nbytes = self.kv_bytes(context) + self.draft_kv_bytes(context)
        if resident:
            return nbytes
        return nbytes + context * self.hidden_bytes

    def activation_bytes(self, prefill_chunk: int, context: int) -> int:
        """Return the bytes of what one layer makes of the last prefill chunk of a prompt.

        Model and draft do not compute at the same time, so the larger of the two counts.
        """
        # of each token: its activations, and its scores for every token of the context
        token_bytes = self.layer_activation_bytes + context * self.score_bytes
        nbytes = min(prefill_chunk, context) * token_bytes + self.converted_bytes
        if self.draft is None:
            return nbytes
        # a draft made for a shorter context sees only as much
        draft_context = min(context, self.draft.max_context)
        return max(nbytes, self.draft.activation_bytes(prefill_chunk, draft_context))


def layer_windows(config: ModelConfig, window: int | None) -> list[int | None]:
    """Return the tokens that each layer looks back over; None: all of them.

    Args:
        config: the config of the model, whose layers may have a window of their own.
        window: by setting; the smaller one counts.
    """
    windows: list[int | None] = []
    for index in range(config.num_hidden_layers):
        own = config.layer(index).window
        windows.append(min(filter(None, (own, window)), default=None))
    return windows


def estimate_memory(
    checkpoint: Checkpoint,
    *,
    item_bytes: int,
    window: int | None,
    fused_attention: bool,
    lazy: bool,
    layer_kv_bytes: int,
) -> MemoryEstimate:
    """Return what a model takes in memory.

    Args:
        checkpoint: the model.
        item_bytes: bytes of one number among the activations.
        window: tokens that attention is limited to by setting.
        fused_attention: whether attention runs without the matrix of scores (H, L, S) in memory.
        lazy: whether a layer's results are computed when all chunks of a prompt were asked for, so
            that what goes in is held beside them; else chunk by chunk.
        layer_kv_bytes: bytes of a token in one layer's KV caches.
    """
    config = checkpoint.config
    # What lives at once in a layer, of one token, counted generously: three hidden states; the
    # heads of queries, keys and values twice, as multiplied and rotated; gate, up, and two more.
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    items = 3 * config.hidden_size + 2 * heads * config.head_dim + 4 * config.intermediate_size
    score_bytes = converted_bytes = 0
    if lazy:
        groups = [*checkpoint.layers, checkpoint.output_matrix]
        converted_bytes = max(_converted_bytes(group, item_bytes) for group in groups)
    if not fused_attention:
        # before and after softmax
        score_bytes = 2 * item_bytes * config.num_attention_heads
    lm_head_bytes = 0
    if checkpoint.lm_head is not None:
        lm_head_bytes = _buffer_bytes(checkpoint.lm_head)
    return MemoryEstimate(
        layer_bytes=tuple(_buffer_bytes(layer) for layer in checkpoint.layers),
        embedding_bytes=_buffer_bytes(checkpoint.embed_tokens),
        embedding_row_bytes=checkpoint.embed_tokens.nbytes // config.vocab_size,
        norm_bytes=_buffer_bytes(checkpoint.norm),
        lm_head_bytes=lm_head_bytes,
        tied=checkpoint.lm_head is None,
        layer_kv_bytes=layer_kv_bytes,
        windows=tuple(layer_windows(config, window)),
        hidden_bytes=(1 + lazy) * config.hidden_size * item_bytes,
        layer_activation_bytes=item_bytes * items,
        score_bytes=score_bytes,
        max_context=config.max_position_embeddings,
        converted_bytes=converted_bytes,
    )


def _converted_bytes(group: TensorGroup, item_bytes: int) -> int:
    """Return the bytes of two products' numbers in the type of the activations, at most.

    MLX makes a copy of a matrix, or of its scales and biases, that is of a smaller type; it makes
    the next one while it multiplies by the one before.
    """
    stack_of = {member: stack for stack, members in STACKS.items() for member in members}
    products: Counter[str] = Counter()
    for name, tensor in group.tensors.items():
        is_number = tensor.dtype in {"F16", "BF16"}
        if is_number and len(tensor.shape) == 2 and DTYPES[tensor.dtype].size < item_bytes:
            member = name.rpartition(".")[0]
            products[stack_of.get(member, member)] += prod(tensor.shape) * item_bytes
    return sum(sorted(products.values())[-2:])


def _buffer_bytes(group: TensorGroup) -> int:
    """Return the bytes of a buffer for these tensors: whole pages, and one more to align them."""
    pages = -(-group.layout.nbytes // PAGE)
    return (pages + 1) * PAGE
