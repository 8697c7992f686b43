"""The time of one token's arithmetic here, measured with one of the model's layers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup
from edgellm.kv_cache.cache import stored
from edgellm.models.arithmetic import Arithmetic, arithmetic_of
from edgellm.models.cpu.linear import make_linear
from edgellm.reading.disk_reader import DiskReader, Reader
from edgellm.runtime.loader import make_block, make_caches, make_matrix
from edgellm.settings import LoadSettings

REPEATS = 21
"""Steps that are timed, after one that is not; their median counts."""

AT_WORST = 0.9
"""The share of the timed steps that are no slower than what is called the worst: one in ten may
have met something else that ran."""

CONTEXT = 16
"""Tokens that the measured layer looks back at."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long something took that was timed several times.

    Attributes:
        best: the shortest.
        median: of all.
        worst: of all but the slowest tenth.
    """

    best: float
    median: float
    worst: float


@dataclass(frozen=True, slots=True)
class StepTime:
    """Arithmetic of one token, with all weights in memory.

    Attributes:
        layer: of one layer.
        output: of the output matrix, and of taking the likeliest token.
        layers: how many the model has.
        weight_bytes: that a token goes through.
    """

    layer: Seconds
    output: Seconds
    layers: int
    weight_bytes: int

    @property
    def seconds(self) -> float:
        """Seconds of a whole token, the median."""
        return self.layers * self.layer.median + self.output.median

    @property
    def weights_per_second(self) -> float:
        """Bytes of weights through the arithmetic, a second; the median."""
        return self.weight_bytes / self.seconds

    @property
    def weights_at_best(self) -> float:
        """Bytes of weights a second where every layer is as fast as the fastest one timed."""
        return self.weight_bytes / (self.layers * self.layer.best + self.output.best)

    @property
    def weights_at_worst(self) -> float:
        """Bytes of weights a second where every layer is as slow as the slower ones timed."""
        return self.weight_bytes / (self.layers * self.layer.worst + self.output.worst)


def measure_step(
    checkpoint: Checkpoint, settings: LoadSettings, *, reader: Reader | None = None
) -> StepTime:
    """Time one layer and the output matrix, filled with the model's own weights.

    No more than those two are in memory at a time.

    Args:
        checkpoint: the model.
        settings: as for ``load``.
        reader: reads the weights; None: one that is opened and closed here.

    Raises:
        ReadError: a file cannot be read.
    """
    arithmetic = arithmetic_of(checkpoint, settings)
    used_reader = reader or DiskReader()
    try:
        layer = _time_layer(checkpoint, arithmetic, used_reader)
        output = _time_output(checkpoint, arithmetic, used_reader)
    finally:
        if reader is None:
            used_reader.close()
        mx.clear_cache()
    return StepTime(
        layer,
        output,
        layers=checkpoint.config.num_hidden_layers,
        weight_bytes=checkpoint.token_weight_bytes,
    )


def _time_layer(checkpoint: Checkpoint, arithmetic: Arithmetic, reader: Reader) -> Seconds:
    index = len(checkpoint.layers) // 2
    buffer = _filled_buffer(checkpoint.layers[index], reader)
    layer = make_block(checkpoint, arithmetic, index, buffer)
    tokens = CONTEXT + REPEATS + 1
    cache = make_caches(
        checkpoint, capacity=tokens, window=None, reserve=tokens, kv_bits=arithmetic.kv_bits
    )[0]
    cache.offset = CONTEXT
    # (1, 1, E)
    hidden = _random_hidden(checkpoint, arithmetic)
    return _time(lambda: mx.eval(layer(hidden, [(cache, 1)]), *stored([cache])))


def _time_output(checkpoint: Checkpoint, arithmetic: Arithmetic, reader: Reader) -> Seconds:
    group = checkpoint.output_matrix
    matrix = make_matrix(group, _filled_buffer(group, reader))
    lm_head = make_linear(arithmetic.kernels, matrix)
    # (1, E)
    hidden = _random_hidden(checkpoint, arithmetic)[:, -1]
    mx.eval(hidden)
    return _time(lambda: mx.eval(mx.argmax(lm_head(hidden), axis=-1)))


def _filled_buffer(group: TensorGroup, reader: Reader) -> WeightBuffer:
    buffer = WeightBuffer(group.layout.nbytes)
    reader.submit(group.extents, buffer.memory).wait()
    return buffer


def _random_hidden(checkpoint: Checkpoint, arithmetic: Arithmetic) -> mx.array:
    """Return random hidden states (1, 1, E)."""
    hidden = mx.random.normal((1, 1, checkpoint.config.hidden_size), key=mx.random.key(0))
    hidden = hidden.astype(arithmetic.dtype)
    mx.eval(hidden)
    return hidden


def _time(step: Callable[[], None]) -> Seconds:
    # the first step compiles kernels and touches memory for the first time
    step()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    seconds.sort()
    worst = seconds[int(AT_WORST * (len(seconds) - 1))]
    return Seconds(seconds[0], statistics.median(seconds), worst)
