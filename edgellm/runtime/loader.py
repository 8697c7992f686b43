"""From a checkpoint and a plan to a model that runs: everything is read, evaluated and ready when ``load_model`` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from edgellm.checkpoint.buffer import DTYPES, WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, Part
from edgellm.device import machine as device
from edgellm.kernels.engine import Engine
from edgellm.kv_cache.cache import Cache, KVCache, storage_tokens, stored
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.models.cpu.block import engine_for, make_layer, make_layers, make_linear
from edgellm.models.linear import DenseLinear, QuantizedLinear, linear_from
from edgellm.models.llama import Layer, Layers, Model, ResidentEmbedding
from edgellm.models.paged_layers import PagedEmbedding, PagedLayers
from edgellm.plan.memory_estimate import windows_of
from edgellm.plan.plan import Plan
from edgellm.reading.disk_reader import DiskReader, Reader, Ticket
from edgellm.reading.tuning import tuned
from edgellm.settings import KV_PLAIN_BITS, LoadSettings

LoadProgress = Callable[[int, int], None]
"""Called with bytes read and bytes in all."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a model computes here: the type of activations, and the slots that keep the disk and the arithmetic busy."""

    dtype: mx.Dtype
    fused_attention: bool
    slots: int
    lag: int
    kernels: Engine | None = None


def arithmetic_of(checkpoint: Checkpoint, settings: LoadSettings) -> Arithmetic:
    """How this machine will compute the model."""
    dtype = device.compute_dtype(DTYPES[checkpoint.dtype])
    if device.has_gpu():
        return Arithmetic(dtype, fused_attention=True, slots=3, lag=1)
    kernels = engine_for(settings)
    return Arithmetic(dtype, fused_attention=kernels is not None, slots=2, lag=0, kernels=kernels)


def load_model(
    checkpoint: Checkpoint,
    plan: Plan,
    reader: Reader,
    settings: LoadSettings,
    *,
    progress: LoadProgress | None = None,
) -> Model:
    """Read the weights that the plan keeps in memory, begin to read those that it streams, and build the model.

    Raises:
        ReadError: a file cannot be read.
    """
    config, arithmetic = checkpoint.config, arithmetic_of(checkpoint, settings)
    dtype = arithmetic.dtype
    total = plan.pinned_bytes + plan.outer_bytes
    loading = _Loading(reader, total, progress)
    kept = {
        index: loading.begin(checkpoint.layers[index])
        for index in (plan.pinned if plan.resident else ())
    }
    norm = loading.begin(checkpoint.norm)
    table = loading.begin(checkpoint.embed_tokens) if plan.embedding_resident else None
    head = loading.begin(checkpoint.lm_head) if checkpoint.lm_head else None
    loading.finish()
    weight = norm.arrays(checkpoint.norm.layout)["weight"].astype(dtype)
    mx.eval(weight)
    layers: Layers
    if plan.resident:
        blocks = [
            make_block(checkpoint, arithmetic, checkpoint.layers[index], slot)
            for index, slot in kept.items()
        ]
        layers = make_layers(blocks)
    else:
        make_layer = partial(make_block, checkpoint, arithmetic)
        layers = PagedLayers(
            checkpoint.layers, plan.pinned, plan.slots, reader, make_layer, lag=arithmetic.lag
        )
    embedding = make_embedding(checkpoint.embed_tokens, table) if table else None
    if checkpoint.lm_head is not None and head is not None:
        lm_head = make_embedding(checkpoint.lm_head, head)
    else:
        assert embedding is not None, "a tied head is the resident embedding"
        lm_head = embedding
    embed_tokens = (
        ResidentEmbedding(embedding, dtype)
        if embedding
        else PagedEmbedding(checkpoint.embed_tokens, dtype)
    )
    return Model(
        config,
        embed_tokens=embed_tokens,
        layers=layers,
        norm=weight,
        lm_head=make_linear(arithmetic.kernels, lm_head),
    )


def disk_reader(checkpoint: Checkpoint, plan: Plan) -> DiskReader:
    """The reader of a model's files, as its disk is best read. Raises ReadError."""
    files = sorted({extent.file for part in checkpoint.layers for extent in part.extents})
    return DiskReader(tuned(files), files=files if plan.streamed else ())


class _Loading:
    """Reads that are under way together, and how far they are."""

    def __init__(self, reader: Reader, total: int, progress: LoadProgress | None) -> None:
        self._reader, self._total, self._progress = reader, total, progress
        self._tickets: list[tuple[Ticket, int]] = []

    def begin(self, part: Part) -> WeightBuffer:
        slot = WeightBuffer(part.layout.nbytes)
        self._tickets.append((self._reader.submit(part.extents, slot.memory), part.nbytes))
        return slot

    def finish(self) -> None:
        done = 0
        for ticket, nbytes in self._tickets:
            ticket.wait()
            done += nbytes
            if self._progress is not None:
                self._progress(done, self._total)


def make_block(
    checkpoint: Checkpoint, arithmetic: Arithmetic, part: Part, slot: WeightBuffer
) -> Layer:
    """The decoder layer over what ``part`` places in a slot."""
    tensors, quantization_of = slot.arrays(part.layout), part.quantizations.__getitem__
    return make_layer(arithmetic.kernels, checkpoint.config, tensors, quantization_of)


def make_embedding(part: Part, slot: WeightBuffer) -> DenseLinear | QuantizedLinear:
    """The embedding or the head over what ``part`` places in a slot."""
    tensors = {f"table.{name}": array for name, array in slot.arrays(part.layout).items()}
    return linear_from(tensors, "table", part.quantizations[""])


def kv_format_of(checkpoint: Checkpoint, kv_bits: int | None) -> KVFormat:
    """How keys and values are kept: as they are computed, in 16 bits, or packed with 16-bit scales."""
    config = checkpoint.config
    dtype = device.compute_dtype(DTYPES[checkpoint.dtype])
    if kv_bits is not None and dtype == mx.float32:
        dtype = mx.float16
    return KVFormat(
        config.num_key_value_heads,
        config.head_dim,
        dtype,
        bits=None if kv_bits == KV_PLAIN_BITS else kv_bits,
    )


def make_caches(
    checkpoint: Checkpoint,
    *,
    capacity: int,
    window: int | None,
    reserve: int,
    kv_bits: int | None = None,
    context: int | None = None,
) -> list[Cache]:
    """One cache a layer: of all tokens up to ``capacity``, or of a window where the model or the setting has one.

    ``context`` is what a sequence might have, where this one has less: windows count where they are
    shorter than it, so that attention over a short text is split as it would be for a long one.
    """
    kept = kv_format_of(checkpoint, kv_bits)
    caches: list[Cache] = [
        KVCache(kept, capacity=capacity, window=own, reserve=reserve)
        for own in _windows(checkpoint, window, context or capacity)
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
    """Bytes of what ``make_caches`` makes where it reserves the whole capacity."""
    each = kv_format_of(checkpoint, kv_bits).token_bytes
    return sum(
        each * storage_tokens(capacity, own)
        for own in _windows(checkpoint, window, context or capacity)
    )


def _windows(checkpoint: Checkpoint, window: int | None, context: int) -> list[int | None]:
    """The window of each layer's cache; None where it would hold the whole context."""
    return [own if own and own < context else None for own in windows_of(checkpoint.config, window)]
