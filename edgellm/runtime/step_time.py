"""How long one token's arithmetic takes on this machine, from one layer that is really there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, Part
from edgellm.kv_cache.cache import stored
from edgellm.models.cpu.block import make_linear
from edgellm.reading.disk_reader import DiskReader, Reader
from edgellm.runtime.loader import arithmetic_of, make_block, make_caches, make_embedding
from edgellm.settings import LoadSettings

REPEATS = 7
CONTEXT = 16
"""Tokens that the measured layer looks back at."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of arithmetic for one token, and the bytes of weights that it goes through."""

    layer: float
    head: float
    layers: int
    weight_bytes: int

    @property
    def seconds(self) -> float:
        """Of a whole token, with all weights in memory."""
        return self.layers * self.layer + self.head

    @property
    def weights_per_second(self) -> float:
        """Bytes of weights through the arithmetic, a second."""
        return self.weight_bytes / self.seconds


def measure_step(
    checkpoint: Checkpoint, settings: LoadSettings, *, reader: Reader | None = None
) -> StepTime:
    """Time one layer and the head, filled with the model's own weights; it holds no more than those two in memory.

    Raises:
        ReadError: a file cannot be read.
    """
    own = reader or DiskReader()
    try:
        layer = _time_layer(checkpoint, settings, own)
        head = _time_head(checkpoint, settings, own)
    finally:
        if reader is None:
            own.close()
        mx.clear_cache()
    outer = (checkpoint.lm_head or checkpoint.embed_tokens).nbytes + checkpoint.norm.nbytes
    weights = outer + sum(part.nbytes for part in checkpoint.layers)
    return StepTime(layer, head, checkpoint.config.num_hidden_layers, weights)


def _time_layer(checkpoint: Checkpoint, settings: LoadSettings, reader: Reader) -> float:
    part = checkpoint.layers[len(checkpoint.layers) // 2]
    layer = make_block(checkpoint, arithmetic_of(checkpoint, settings), part, _filled(part, reader))
    cache = make_caches(
        checkpoint, capacity=CONTEXT + REPEATS + 1, window=None, reserve=CONTEXT + REPEATS + 1
    )[0]
    cache.offset = CONTEXT
    hidden = _hidden(checkpoint, settings)

    def step() -> None:
        mx.eval(layer(hidden, [(cache, 1)]), *stored([cache]))

    return _median_seconds(step)


def _time_head(checkpoint: Checkpoint, settings: LoadSettings, reader: Reader) -> float:
    part = checkpoint.lm_head or checkpoint.embed_tokens
    head = make_linear(
        arithmetic_of(checkpoint, settings).kernels, make_embedding(part, _filled(part, reader))
    )
    hidden = _hidden(checkpoint, settings)[:, -1]
    mx.eval(hidden)
    return _median_seconds(lambda: mx.eval(mx.argmax(head(hidden), axis=-1)))


def _filled(part: Part, reader: Reader) -> WeightBuffer:
    slot = WeightBuffer(part.layout.nbytes)
    reader.submit(part.extents, slot.memory).wait()
    return slot


def _hidden(checkpoint: Checkpoint, settings: LoadSettings) -> mx.array:
    """Random hidden states (1, 1, E)."""
    hidden = mx.random.normal((1, 1, checkpoint.config.hidden_size), key=mx.random.key(0))
    hidden = hidden.astype(arithmetic_of(checkpoint, settings).dtype)
    mx.eval(hidden)
    return hidden


def _median_seconds(step: Callable[[], None]) -> float:
    step()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)
