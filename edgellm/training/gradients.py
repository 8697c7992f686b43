"""The loss of a step and its derivatives, with a few layers in memory at a time.

All micro-batches go through a layer before the next one is needed. Upwards only the input of each
layer is kept; downwards each layer is computed again from that and differentiated: gradient
checkpointing (Chen et al. 2016, arXiv:1604.06174) with a layer a segment.
"""

# T tokens of a micro-batch, E hidden, R rows after which something is learned, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.models.model import Embedding
from edgellm.training.adapted_block import AdaptedBlock, Results
from edgellm.training.kept_inputs import KeptInputs
from edgellm.training.layer_visits import LayerVisits
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch
from edgellm.training.operations.adapted_product import Kept
from edgellm.training.operations.loss import losses_of

Floats = npt.NDArray[np.float32]

HEAD_ROWS, HEAD_BYTES = 256, 16 << 20
"""Rows whose logits are there at once, and the bytes of these, at most."""


def head_rows(vocabulary: int) -> int:
    """Return the rows of so many logits that are there at once."""
    return max(1, min(HEAD_ROWS, HEAD_BYTES // (4 * vocabulary)))


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
        recompute: whether all of a layer is computed again downwards, and only its input is kept.
        keep: returns what keeps the inputs of a step's layers.
        head_rows: rows whose logits are there at once.
    """

    embed: Embedding
    embedding_scale: float
    layers: LayerVisits[AdaptedBlock]
    count: int
    first: int
    logits: Callable[[mx.array], mx.array]
    recompute: bool = True
    keep: Callable[[], KeptInputs] = list
    head_rows: int = HEAD_ROWS

    def kept_results(self) -> dict[int, Results] | None:
        """Return where rows keep each layer's results; None: they are computed again."""
        return None if self.recompute else {}


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


@dataclass(frozen=True, slots=True)
class Rows:
    """A micro-batch on its way through the layers, with the changes that it meets there.

    Attributes:
        batch: its sequences.
        changes: of each layer.
        dropout: what is left out.
        results: of each layer, kept on the way up so that the way down need not compute them
            again; None: they are not kept.
    """

    batch: MicroBatch
    changes: Sequence[Change]
    dropout: Dropout = lambda _layer, _batch: {}
    results: dict[int, Results] | None = None

    def through(self, index: int, layer: AdaptedBlock, hidden: mx.array) -> mx.array:
        """Return the states (1, T, E) after a layer, of those before it."""
        kept: Kept = {}
        if self.changes[index]:
            kept = self.dropout(index, self.batch)
        results = None
        if self.results is not None and self.changes[index]:
            results = self.results.setdefault(index, {})
        return layer(index, hidden, self.batch.lengths, self.changes[index], kept, results=results)

    def back(
        self, index: int, layer: AdaptedBlock, hidden: mx.array, gradient: mx.array
    ) -> tuple[mx.array, list[mx.array]]:
        """Return derivatives by a layer's input (1, T, E) and by each array of its change.

        Args:
            index: of the layer.
            layer: itself.
            hidden: what went in.
            gradient: the loss's derivative by what came out.
        """
        change, kept = self.changes[index], self.dropout(index, self.batch)
        names = list(change)
        results = None if self.results is None else self.results.pop(index, None)

        def through(state: mx.array, *numbers: mx.array) -> list[mx.array]:
            own = dict(zip(names, numbers, strict=True))
            return [layer(index, state, self.batch.lengths, own, kept, results=results)]

        _, (by_hidden, *by_change) = mx.vjp(through, [hidden, *change.values()], [gradient])
        return by_hidden, by_change


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
    by_changes = downwards(model, rows, kept_inputs, gradients, asked)
    return StepGradients(loss / asked, asked, by_changes)


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


def upwards(
    model: TrainedModel, rows: Sequence[Rows], *, kept: int = 0
) -> tuple[KeptInputs, list[mx.array]]:
    """Return the inputs of each changed layer, and the states of all rows after all layers.

    Args:
        model: the model.
        rows: go through a layer one after the other, while it is in memory.
        kept: of how many of them, from the first, inputs are kept.
    """
    hidden = [model.embedding_scale * model.embed(each.batch.ids) for each in rows]
    mx.eval(hidden)
    kept_inputs = model.keep()
    for index in range(model.count):
        if kept and index >= model.first:
            kept_inputs.append(hidden[:kept])
        with model.layers.layer(index) as layer:
            states = []
            for state, each in zip(hidden, rows, strict=True):
                states.append(each.through(index, layer, state))
                mx.eval(states[-1])
        hidden = states
    return kept_inputs, hidden


def downwards(
    model: TrainedModel,
    rows: Sequence[Rows],
    kept_inputs: KeptInputs,
    gradients: list[mx.array],
    asked: int,
) -> list[Change]:
    """Return derivatives by the changes that rows share, divided by what was asked of all.

    Args:
        model: the model.
        rows: that went upwards.
        kept_inputs: of theirs, of each changed layer; they are used up.
        gradients: derivatives of the summed loss by their states after all layers.
        asked: what the loss is the mean of.
    """
    by_changes: list[Change] = [{} for _ in range(model.count)]
    for index in reversed(range(model.first, model.count)):
        inputs = kept_inputs.pop()
        with model.layers.layer(index) as layer:
            sums: list[mx.array] = []
            for place, each in enumerate(rows):
                gradients[place], by_own = each.back(index, layer, inputs[place], gradients[place])
                sums = by_own if not sums else [a + b for a, b in zip(sums, by_own, strict=True)]
                mx.eval(gradients[place], sums)
            # at the end, in float32: in 16 bits a small share of a derivative would vanish
            means = [array.astype(mx.float32) / asked for array in sums]
            mx.eval(means)
            by_changes[index] = dict(zip(rows[0].changes[index], means, strict=True))
    return by_changes


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
    return losses_of(model.logits(states), targets)
