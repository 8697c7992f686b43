"""A checkpoint and a plan become a model: read and evaluated when ``load_model`` returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Protocol

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.kv_cache.cache import Cache, KVCache, storage_tokens, stored
from edgellm.memory_plan.memory_estimate import layer_windows
from edgellm.memory_plan.plan import Plan
from edgellm.models.arithmetic import Arithmetic, arithmetic_of, config_for, kv_format_of
from edgellm.models.cpu.block import make_layer, make_layers
from edgellm.models.cpu.linear import RMSNormWeight, make_head
from edgellm.models.cpu.whole_pass import CpuEmbedding, make_pass
from edgellm.models.embedding import PagedEmbedding, has_rows
from edgellm.models.layers import Layer, LayerChange, WindowedLayers
from edgellm.models.linear import DenseLinear, QuantizedLinear, linear_from
from edgellm.models.model import Embedding, Model, ResidentEmbedding
from edgellm.models.paged_layers import PagedLayers
from edgellm.models.registry import block_class
from edgellm.reading.disk_reader import DiskReader, Reader, Ticket
from edgellm.reading.tuning import tuned
from edgellm.settings import LoadSettings


class LayerChanges(Protocol):
    """An adapter, of which no more is asked here."""

    def layer_changes(self, dtype: mx.Dtype) -> Sequence[LayerChange]:
        """Read what is added in each layer. Raises ReadError, FormatError."""


LoadProgress = Callable[[int, int], None]
"""Called with bytes read and bytes in all."""

SendProgress = Callable[[str, int, int], None]
"""Called with another machine's name, the bytes that were sent to it, and those that it lacked."""


def load_model(
    checkpoint: Checkpoint,
    plan: Plan,
    reader: Reader,
    settings: LoadSettings,
    *,
    adapter: LayerChanges | None = None,
    progress: LoadProgress | None = None,
) -> Model:
    """Read the weights that stay in memory, begin to read those that stream, build the model.

    Args:
        checkpoint: what is read.
        plan: which weights stay in memory.
        reader: reads them; the layers that stream go on using it.
        settings: which arithmetic computes.
        adapter: runs beside the weights; None: there is none.
        progress: told of the bytes that have arrived.

    Raises:
        ReadError: a file cannot be read.
        FormatError: the adapter holds what is no number.
    """
    checkpoint = replace(checkpoint, config=config_for(checkpoint, settings))
    arithmetic = arithmetic_of(checkpoint, settings)
    block = block_class(checkpoint.config)
    changes: Sequence[LayerChange] = ()
    if adapter is not None:
        changes = adapter.layer_changes(arithmetic.dtype)
    reads = _Reads(reader, _resident_bytes(checkpoint, plan), progress)
    # Every read is begun before the first one is waited for, in the order of this list.
    layer_buffers = []
    if plan.resident:
        layer_buffers = [reads.begin(layer) for layer in checkpoint.layers]
    norm_buffer = reads.begin(checkpoint.norm)
    embedding_buffer, lm_head_buffer = None, None
    if plan.embedding_resident:
        embedding_buffer = reads.begin(checkpoint.embed_tokens)
    if checkpoint.lm_head is not None:
        lm_head_buffer = reads.begin(checkpoint.lm_head)
    reads.finish()

    stored_norm = norm_buffer.arrays(checkpoint.norm.layout)["weight"]
    norm_weight = stored_norm.astype(arithmetic.dtype)
    mx.eval(norm_weight)
    norm = block.norm(norm_weight, checkpoint.config)

    embed_tokens: Embedding
    if embedding_buffer is not None:
        embedding = make_matrix(checkpoint.embed_tokens, embedding_buffer)
        if arithmetic.kernels is not None and has_rows(embedding):
            embed_tokens = CpuEmbedding(embedding)
        else:
            embed_tokens = ResidentEmbedding(embedding, arithmetic.dtype)
    else:
        embed_tokens = PagedEmbedding(checkpoint.embed_tokens, arithmetic.dtype)
    with ExitStack() as on_failure:
        on_failure.callback(embed_tokens.close)
        if checkpoint.lm_head is not None and lm_head_buffer is not None:
            lm_head = make_matrix(checkpoint.lm_head, lm_head_buffer)
        else:
            assert plan.embedding_resident, "a tied output matrix is the resident embedding"
            lm_head = embedding

        layers = _make_layers(
            checkpoint,
            plan,
            arithmetic,
            layer_buffers,
            reader=reader,
            changes=changes,
            on_pinned=reads.count,
        )
        on_failure.callback(layers.close)
        kernel_norm = RMSNormWeight(stored_norm, checkpoint.config.rms_norm_eps)
        head = make_head(arithmetic.kernels, lm_head, kernel_norm, norm)
        # no family on the kernels scales embeddings or caps logits
        model = Model(
            checkpoint.config,
            embed_tokens=embed_tokens,
            layers=layers,
            norm=norm,
            head=head,
            embedding_scale=block.embedding_scale(checkpoint.config),
            logit_cap=checkpoint.config.final_logit_softcapping,
            whole_pass=make_pass(embed_tokens, layers, head),
        )
        on_failure.pop_all()
    return model


def load_layers(
    checkpoint: Checkpoint,
    plan: Plan,
    reader: Reader,
    settings: LoadSettings,
    changes: Sequence[LayerChange] = (),
) -> WindowedLayers:
    """Return a model's layers without the rest of it; arguments and errors are as above."""
    checkpoint = replace(checkpoint, config=config_for(checkpoint, settings))
    arithmetic = arithmetic_of(checkpoint, settings)
    buffers = read_layers(checkpoint, reader) if plan.resident else []
    return _make_layers(checkpoint, plan, arithmetic, buffers, reader=reader, changes=changes)


def read_layers(
    checkpoint: Checkpoint, reader: Reader, progress: LoadProgress | None = None
) -> list[WeightBuffer]:
    """Read all layers, each into a buffer of its own. Raises ReadError."""
    reads = _Reads(reader, sum(layer.nbytes for layer in checkpoint.layers), progress)
    buffers = [reads.begin(layer) for layer in checkpoint.layers]
    reads.finish()
    return buffers


def open_reader(checkpoint: Checkpoint, plan: Plan) -> DiskReader:
    """Return a reader of a model's files, as their disk is best read. Raises ReadError."""
    files = sorted({extent.file for layer in checkpoint.layers for extent in layer.extents})
    return DiskReader(tuned(files), files=files if plan.streamed else ())


class _Reads:
    """Reads that are under way together, and how far they are."""

    def __init__(self, reader: Reader, total: int, progress: LoadProgress | None) -> None:
        self._reader = reader
        self._total = total
        self._progress = progress
        self._tickets: list[tuple[Ticket, int]] = []
        self._done = 0

    def begin(self, group: TensorGroup) -> WeightBuffer:
        """Begin to read tensors into a buffer of their own."""
        buffer = WeightBuffer(group.layout.nbytes)
        self._tickets.append((self._reader.submit(group.extents, buffer.memory), group.nbytes))
        return buffer

    def finish(self) -> None:
        """Wait for all reads. Raises ReadError."""
        for ticket, nbytes in self._tickets:
            ticket.wait()
            self.count(nbytes)

    def count(self, nbytes: int) -> None:
        """Count bytes that have arrived, and tell how many there are now."""
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _make_layers(
    checkpoint: Checkpoint,
    plan: Plan,
    arithmetic: Arithmetic,
    buffers: Sequence[WeightBuffer],
    *,
    reader: Reader,
    changes: Sequence[LayerChange] = (),
    on_pinned: Callable[[int], None] = lambda _: None,
) -> WindowedLayers:
    """Return the layers over ``buffers`` that hold them, or, of a paged model, over their own."""
    if plan.resident:
        blocks = [
            make_block(checkpoint, arithmetic, index, buffer)
            for index, buffer in enumerate(buffers)
        ]
        for layer, change in zip(blocks, changes, strict=False):
            layer.adapt(change)
        return make_layers(blocks)
    return PagedLayers(
        checkpoint.layers,
        plan.pinned,
        plan.ring_buffers,
        reader,
        partial(make_block, checkpoint, arithmetic),
        configs=[checkpoint.config.layer(i) for i in range(len(checkpoint.layers))],
        changes=changes,
        launch_ahead=arithmetic.launch_ahead,
        on_pinned=on_pinned,
    )


def _resident_bytes(checkpoint: Checkpoint, plan: Plan) -> int:
    """Return the bytes that are read once, to stay."""
    groups = [*(checkpoint.layers[index] for index in plan.pinned), checkpoint.norm]
    if plan.embedding_resident:
        groups.append(checkpoint.embed_tokens)
    if checkpoint.lm_head is not None:
        groups.append(checkpoint.lm_head)
    return sum(group.nbytes for group in groups)


def make_block(
    checkpoint: Checkpoint, arithmetic: Arithmetic, index: int, buffer: WeightBuffer
) -> Layer:
    """Return decoder layer number ``index`` over a buffer with its tensors."""
    config, group = checkpoint.config, checkpoint.layers[index]
    return make_layer(
        arithmetic.kernels,
        config,
        config.layer(index),
        buffer.arrays(group.layout),
        group.quantizations.__getitem__,
    )


def make_matrix(group: TensorGroup, buffer: WeightBuffer) -> DenseLinear | QuantizedLinear:
    """Return the embedding or the output matrix over a buffer with its tensors."""
    tensors = {f"matrix.{part}": array for part, array in buffer.arrays(group.layout).items()}
    return linear_from(tensors, "matrix", group.quantizations[""])


def make_caches(
    checkpoint: Checkpoint,
    *,
    capacity: int,
    window: int | None,
    reserve: int,
    kv_bits: int | None = None,
    context: int | None = None,
) -> list[Cache]:
    """Return empty caches, one per layer.

    Args:
        checkpoint: the model.
        capacity: tokens that a cache holds at most; less where its layer has a window.
        window: tokens that attention looks back over, by setting.
        reserve: tokens that storage is made for at once.
        kv_bits: of a stored number; None: numbers as they are computed.
        context: tokens that a sequence might have, where this one has less; None: ``capacity``.
            Windows count where they are shorter than it, so that attention over a short text is
            split as it would be for a long one.
    """
    kv_format = kv_format_of(checkpoint, kv_bits)
    caches: list[Cache] = [
        KVCache(kv_format, capacity=capacity, window=own_window, reserve=reserve)
        for own_window in _cache_windows(checkpoint, window, context or capacity)
    ]
    mx.eval(stored(caches))
    return caches


def caches_bytes(
    checkpoint: Checkpoint,
    *,
    capacity: int,
    window: int | None,
    kv_bits: int | None = None,
    context: int | None = None,
) -> int:
    """Return the bytes of what ``make_caches`` makes where it reserves the whole capacity."""
    tokens = sum(
        storage_tokens(capacity, own_window)
        for own_window in _cache_windows(checkpoint, window, context or capacity)
    )
    return tokens * kv_format_of(checkpoint, kv_bits).token_bytes


def _cache_windows(checkpoint: Checkpoint, window: int | None, context: int) -> list[int | None]:
    """Return the window of each layer's cache; None where it would hold the whole context."""
    windows = layer_windows(checkpoint.config, window)
    return [own if own is not None and own < context else None for own in windows]
