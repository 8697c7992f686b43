"""The loss of a step and its derivatives, with a few layers in memory at a time.

All micro-batches go through a layer before the next one is needed. Upwards only the input of each
layer is kept; downwards each layer is computed again from that and differentiated: gradient
checkpointing (Chen et al. 2016, arXiv:1604.06174) with a layer a segment.
"""

# T tokens of a micro-batch, E hidden, R rows after which something is learned, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from edgellm.models.model import Embedding
from edgellm.training.adapted_block import AdaptedBlock, Kept
from edgellm.training.layer_visits import LayerVisits
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch

HEAD_ROWS = 256
"""Rows whose logits are there at once."""

Dropout = Callable[[int, MicroBatch], Kept]
"""Says what dropout keeps in a layer, of a micro-batch."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The parts of a model as training goes through them.

    Attributes:
        embed: token ids (1, T) to hidden states (1, T, E).
        embedding_scale: what these are multiplied by.
        layers: the decoder layers.
        count: how many there are.
        first: the number of the first layer that is changed: derivatives end there.
        logits: hidden states (R, E) after all layers to logits (R, V), differentiable.
    """

    embed: Embedding
    embedding_scale: float
    layers: LayerVisits[AdaptedBlock]
    count: int
    first: int
    logits: Callable[[mx.array], mx.array]


@dataclass(frozen=True, slots=True)
class StepGradients:
    """A step's loss and derivatives.

    Attributes:
        loss: the mean over all that is asked: nats a token, of texts and answers.
        asked: what the loss is the mean of: tokens that are learned.
        by_changes: derivatives of ``loss``, of each layer.
        figures: what else a person wants to know of the step, by name.
    """

    loss: float
    asked: int
    by_changes: list[Change]
    figures: Mapping[str, float] = field(default_factory=dict)


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
    asked = sum(len(batch.asked_rows) for batch in batches)
    kept_inputs, hidden = _upwards(model, batches, changes, dropout)
    loss, gradients = 0.0, []
    for states, batch in zip(hidden, batches, strict=True):
        batch_loss, by_states = head_loss(model, states, batch)
        loss += batch_loss
        gradients.append(by_states)
    del hidden
    by_changes: list[Change] = [{} for _ in range(model.count)]
    for index in reversed(range(model.first, model.count)):
        inputs = kept_inputs.pop()
        with model.layers.layer(index) as layer:
            sums: list[mx.array] = []
            for place, batch in enumerate(batches):
                own = _OwnLayer(layer, batch, changes[index], dropout(index, batch))
                gradients[place], by_own = own.downwards(inputs[place], gradients[place])
                sums = by_own if not sums else [a + b for a, b in zip(sums, by_own, strict=True)]
                mx.eval(gradients[place], sums)
            # at the end, in float32: in 16 bits a small share of a derivative would vanish
            means = [array.astype(mx.float32) / asked for array in sums]
            mx.eval(means)
            by_changes[index] = dict(zip(changes[index], means, strict=True))
    return StepGradients(loss / asked, asked, by_changes)


def step_loss(
    model: TrainedModel, batches: Sequence[MicroBatch], changes: Sequence[Change]
) -> tuple[float, int]:
    """Return the loss summed over asked tokens, and how many they are; nothing is dropped.

    Layers are visited upwards alone: the model's must be made for that.
    """
    _, hidden = _upwards(model, batches, changes, lambda _layer, _batch: {}, keeps=False)
    losses = [
        head_loss(model, states, batch, differentiate=False)[0]
        for states, batch in zip(hidden, batches, strict=True)
    ]
    return sum(losses), sum(len(batch.asked_rows) for batch in batches)


def head_loss(
    model: TrainedModel, hidden: mx.array, batch: MicroBatch, *, differentiate: bool = True
) -> tuple[float, mx.array]:
    """Return the loss summed over a batch's asked tokens, and its derivative by ``hidden``.

    Logits are made of asked rows alone, some at a time.
    """

    def loss_of(states: mx.array, targets: mx.array) -> mx.array:
        logits = model.logits(states).astype(mx.float32)
        likely = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return (mx.logsumexp(logits, axis=-1) - likely).sum()

    rows = batch.asked_rows
    total, by_hidden = 0.0, mx.zeros_like(hidden)
    for begin in range(0, len(rows), HEAD_ROWS):
        some = rows[begin : begin + HEAD_ROWS]
        places, targets = mx.array(some), mx.array(batch.targets[some])
        if differentiate:
            loss, gradient = mx.value_and_grad(loss_of)(hidden[0][places], targets)
            by_hidden[0, places] = gradient
        else:
            loss = loss_of(hidden[0][places], targets)
        mx.eval(loss, by_hidden)
        total += float(np.array(loss))
    return total, by_hidden


def _upwards(
    model: TrainedModel,
    batches: Sequence[MicroBatch],
    changes: Sequence[Change],
    dropout: Dropout,
    *,
    keeps: bool = True,
) -> tuple[list[list[mx.array]], list[mx.array]]:
    """Return the inputs of each changed layer, and the states after all layers."""
    hidden = [model.embedding_scale * model.embed(batch.ids) for batch in batches]
    mx.eval(hidden)
    kept_inputs = []
    for index in range(model.count):
        if keeps and index >= model.first:
            kept_inputs.append(hidden)
        with model.layers.layer(index) as layer:
            states = []
            for state, batch in zip(hidden, batches, strict=True):
                kept: Kept = {}
                if changes[index]:
                    kept = dropout(index, batch)
                states.append(layer(state, batch.lengths, changes[index], kept))
                mx.eval(states[-1])
        hidden = states
    return kept_inputs, hidden


@dataclass(frozen=True, slots=True)
class _OwnLayer:
    """A layer with its change, for one micro-batch."""

    layer: AdaptedBlock
    batch: MicroBatch
    change: Change
    kept: Kept

    def downwards(self, hidden: mx.array, gradient: mx.array) -> tuple[mx.array, list[mx.array]]:
        """Return derivatives by the layer's input (1, T, E) and by each array of its change.

        Args:
            hidden: what went in.
            gradient: the loss's derivative by what came out.
        """
        names = list(self.change)

        def through(state: mx.array, *numbers: mx.array) -> list[mx.array]:
            own = dict(zip(names, numbers, strict=True))
            return [self.layer(state, self.batch.lengths, own, self.kept)]

        _, (by_hidden, *by_change) = mx.vjp(through, [hidden, *self.change.values()], [gradient])
        return by_hidden, by_change
