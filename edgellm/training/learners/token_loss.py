"""The loss of tokens that are learned: of each, and of a step with its derivatives."""

# T tokens of a micro-batch, E hidden, R rows after which something is learned

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.training.elementwise.loss import losses_of
from edgellm.training.gradients import (
    Dropout,
    Rows,
    StepGradients,
    TrainedModel,
    downwards,
    means_of,
    upwards,
)
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch

Floats = npt.NDArray[np.float32]


def step_gradients(
    model: TrainedModel,
    batches: Sequence[MicroBatch],
    changes: Sequence[Change],
    *,
    dropout: Dropout = lambda _layer, _batch: {},
) -> StepGradients:
    """Return the loss over all asked tokens of a step, and its derivatives by the changes.

    Args:
        model: the model.
        batches: the step's micro-batches.
        changes: of each layer.
        dropout: what is left out.

    Raises:
        ReadError: a layer cannot be read.
    """
    rows = [Rows(batch, changes, dropout, model.kept_results()) for batch in batches]
    asked = sum(len(batch.asked_rows) for batch in batches)
    kept_inputs, hidden = upwards(model, rows, kept=len(rows))
    loss, gradients = 0.0, []
    for states, batch in zip(hidden, batches, strict=True):
        batch_loss, by_states = head_gradients(model, states, batch)
        loss += batch_loss
        gradients.append(by_states)
    del hidden
    sums: list[Change] = [{} for _ in changes]
    downwards(model, rows, kept_inputs, gradients, sums)
    return StepGradients(loss / asked, asked, means_of(sums, asked))


def step_loss(
    model: TrainedModel, batches: Sequence[MicroBatch], changes: Sequence[Change]
) -> tuple[float, int]:
    """Return the loss summed over asked tokens, and how many they are; nothing is dropped.

    Layers are visited upwards alone: the model's must be made for that.
    """
    _, hidden = upwards(model, [Rows(batch, changes) for batch in batches])
    losses = [
        float(row_losses(model, states, batch).sum(dtype=np.float64))
        for states, batch in zip(hidden, batches, strict=True)
    ]
    return sum(losses), sum(len(batch.asked_rows) for batch in batches)


def row_losses(model: TrainedModel, hidden: mx.array, batch: MicroBatch) -> Floats:
    """Return the loss of each of a batch's asked rows (R,), in float32."""
    losses = [
        np.array(_losses(model, hidden[0][places], targets))
        for places, targets in _head_parts(model, batch)
    ]
    return np.concatenate([np.zeros(0, np.float32), *losses])


def head_gradients(
    model: TrainedModel, hidden: mx.array, batch: MicroBatch, weights: Floats | None = None
) -> tuple[float, mx.array]:
    """Return the loss summed over a batch's asked rows, and its derivative by ``hidden``.

    Args:
        model: the model.
        hidden: states (1, T, E) after all layers.
        batch: their sequences.
        weights: of each asked row's loss (R,); None: 1.
    """

    def loss_of(states: mx.array, targets: mx.array, factors: mx.array) -> mx.array:
        return (_losses(model, states, targets) * factors).sum()

    if weights is None:
        weights = np.ones(len(batch.asked_rows), np.float32)
    total, by_hidden, begin = 0.0, mx.zeros_like(hidden), 0
    for places, targets in _head_parts(model, batch):
        factors = mx.array(weights[begin : begin + len(targets)])
        loss, gradient = mx.value_and_grad(loss_of)(hidden[0][places], targets, factors)
        by_hidden[0, places] = gradient
        mx.eval(loss, by_hidden)
        total += float(np.array(loss))
        begin += len(targets)
    return total, by_hidden


def _head_parts(model: TrainedModel, batch: MicroBatch) -> Iterator[tuple[mx.array, mx.array]]:
    """Yield places and targets of asked rows, as many as have their logits at once."""
    rows = batch.asked_rows
    for begin in range(0, len(rows), model.head_rows):
        some = rows[begin : begin + model.head_rows]
        yield mx.array(some), mx.array(batch.targets[some])


def _losses(model: TrainedModel, states: mx.array, targets: mx.array) -> mx.array:
    """Return the losses (R,) of targets after states (R, E), in float32."""
    return losses_of(model.logits(states), targets, model.kernels)
