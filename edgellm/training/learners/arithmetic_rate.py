"""The speed of a training step's arithmetic here, measured with one of the model's layers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device import machine as device
from edgellm.models.arithmetic import engine_for
from edgellm.reading.disk_reader import Reader
from edgellm.settings import LoadSettings
from edgellm.training.full.passes import LearnedModel
from edgellm.training.full.weights import number_shapes
from edgellm.training.learners.token_loss import step_gradients
from edgellm.training.low_rank import LoraSettings, initial_changes
from edgellm.training.micro_batch import NOT_ASKED, MicroBatch, TrainingSequence, token_ids
from edgellm.training.trained_model import LayersInMemory, OpenModel

OPERATIONS, OPERATIONS_OF_ALL = 6, 8
"""Of a token and a number of a matrix: a multiplication and an addition, there, there again and
back; and again where the matrix itself is learned."""

OPERATIONS_OF_REFERENCE = 2
"""Of a model as it was, from which preferences are measured: it goes there alone."""

MOST_TOKENS = 128
"""That go through the measured layer."""

MEASURED_NUMBERS = 16_000_000
"""Of layers that are measured where all numbers are learned; one layer may have more."""

SECONDS, MOST_REPEATS = 0.5, 21
"""That measuring may take, once it has begun, and times that the layer is gone through."""

LEAST_REPEATS = 3
"""Of a small model's step, which is short: other programs may get between one."""

ASSUMED_CPU, ASSUMED_GPU = 1e11, 4e12
"""Operations a second of a machine that cannot be measured."""


@dataclass(frozen=True, slots=True)
class ArithmeticRate:
    """Operations of training a second; ``measured`` says whether here or by a guess."""

    operations: float
    measured: bool


def assumed_rate() -> ArithmeticRate:
    """Return what is assumed where nothing can be measured."""
    return ArithmeticRate(ASSUMED_GPU if device.has_gpu() else ASSUMED_CPU, measured=False)


def measure_rate(
    checkpoint: Checkpoint,
    lora: LoraSettings,
    load: LoadSettings,
    *,
    tokens: int,
    reader: Reader | None = None,
) -> ArithmeticRate:
    """Return how fast one layer goes there and back, filled with the model's own weights.

    Args:
        checkpoint: the model.
        lora: what is learned.
        load: which arithmetic.
        tokens: of a step.
        reader: gives the weights; None: the model's files do.

    Raises:
        ReadError: a file cannot be read.
    """
    middle = len(checkpoint.layers) // 2
    one = replace(
        checkpoint,
        config=replace(checkpoint.config, num_hidden_layers=1),
        layers=checkpoint.layers[middle : middle + 1],
        # a token's row is no arithmetic, and the embedding may be on another machine
        embed_tokens=checkpoint.output_matrix,
        lm_head=None,
    )
    tokens = max(2, min(tokens, MOST_TOKENS))
    # a token alone is asked for: the output matrix has little to do
    asked = (NOT_ASKED,) * (tokens - 2) + (0, NOT_ASKED)
    batch = MicroBatch.of([TrainingSequence(token_ids((0,) * tokens), token_ids(asked))])
    lora = replace(lora, layers=None, dora=False, ranks={}, alphas={}, left_out=())
    changes = initial_changes(one.config, lora, 0)
    opened = OpenModel(one, lora, LayersInMemory([0]), load, reader=reader)
    # numbers that a reader makes up may overflow
    with closing(opened), np.errstate(all="ignore"):
        seconds = _median_seconds(lambda: step_gradients(opened.model, [batch], changes))
    return ArithmeticRate(OPERATIONS * layer_numbers(checkpoint) * tokens / seconds, measured=True)


def measure_rate_of_all(
    checkpoint: Checkpoint, load: LoadSettings, *, tokens: int
) -> ArithmeticRate:
    """Return how fast all numbers of a model are learned: of some layers, embedding and head.

    Args:
        checkpoint: the model, of which nothing is read.
        load: which arithmetic.
        tokens: of a step.
    """
    layers = max(1, min(len(checkpoint.layers), MEASURED_NUMBERS // layer_numbers(checkpoint)))
    config = replace(checkpoint.config, num_hidden_layers=layers)
    numbers = [
        {name: mx.full(shape, 0.01) for name, shape in part.items()}
        for part in number_shapes(config)
    ]
    tokens = max(2, min(tokens, MOST_TOKENS))
    zeros = token_ids((0,) * tokens)
    batch = MicroBatch.of([TrainingSequence(zeros, zeros)])
    model = LearnedModel(config, engine_for(load), keeps_results=True)
    seconds = _median_seconds(lambda: model.gradients([batch], numbers), least=LEAST_REPEATS)
    ours = layers * layer_numbers(checkpoint) + config.vocab_size * config.hidden_size
    return ArithmeticRate(OPERATIONS_OF_ALL * ours * tokens / seconds, measured=True)


def _median_seconds(step: Callable[[], object], *, least: int = 1) -> float:
    """Return the time that a step takes, of ``least`` times or more."""
    step()  # compiles, and touches memory
    times: list[float] = []
    while len(times) < least or (sum(times) < SECONDS and len(times) < MOST_REPEATS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    mx.clear_cache()
    return statistics.median(times)


def layer_numbers(checkpoint: Checkpoint) -> int:
    """Return the numbers of a layer's matrices."""
    shapes = [shape for shape in checkpoint.config.tensor_shapes().values() if len(shape) == 2]
    return sum(rows * columns for rows, columns in shapes)


def matrix_numbers(checkpoint: Checkpoint) -> int:
    """Return the numbers of all matrices that a token goes through."""
    config = checkpoint.config
    outer = config.vocab_size * config.hidden_size
    return config.num_hidden_layers * layer_numbers(checkpoint) + outer
