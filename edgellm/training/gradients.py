"""The way of a step through the layers and back, and the derivatives that it brings.

All rows go through a layer before the next one is needed, so few layers need be in memory. Upwards
only the input of each layer is kept; downwards each layer is computed again from that and
differentiated: gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) with a layer a segment.
"""

# T tokens of a micro-batch, E hidden, R rows of the head, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx

from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.training.adapted_block import AdaptedBlock, Results
from edgellm.training.kept_inputs import KeptInputs
from edgellm.training.layer_visits import LayerVisits
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch
from edgellm.training.operations.adapted_product import Kept

HEAD_ROWS, HEAD_BYTES = 256, 16 << 20
"""Rows whose logits are there at once, and the bytes of these, at most."""


def head_rows(vocabulary: int) -> int:
    """Return the rows of so many logits that are there at once."""
    return max(1, min(HEAD_ROWS, HEAD_BYTES // (4 * vocabulary)))


Dropout = Callable[[int, MicroBatch], Kept]
"""Says what dropout keeps in a layer, of a micro-batch."""


class TrainedLayer(Protocol):
    """A decoder layer whose numbers are arguments of each call."""

    def __call__(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        change: Change,
        kept: Kept,
        /,
        *,
        results: Results | None,
    ) -> mx.array:
        """Return the hidden states (1, T, E) after the layer, as ``AdaptedBlock`` does."""

    def back(
        self,
        index: int,
        hidden: mx.array,
        lengths: Sequence[int],
        change: Change,
        kept: Kept,
        /,
        *,
        gradient: mx.array,
        results: Results | None,
    ) -> tuple[mx.array, Change]:
        """Return derivatives by its input and by its numbers, as ``AdaptedBlock`` does."""


class TrainedLayers(Protocol):
    """Decoder layers, wherever they live."""

    def layer(self, index: int) -> AbstractContextManager[TrainedLayer]:
        """Lend the layer of the next visit. Its results must be evaluated when the block ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedStack:
    """Embedding and decoder layers of a model, as training goes there and back.

    Attributes:
        embed: token ids (1, T) to hidden states (1, T, E).
        embedding_scale: what these are multiplied by.
        layers: the decoder layers.
        count: how many there are.
        first: the number of the first layer that is changed: derivatives end there.
        recompute: whether all of a layer is computed again downwards, and only its input is kept.
        keep: returns what keeps the inputs of a step's layers.
        look_up: called before each micro-batch goes through a layer; what it raises ends the step.
    """

    embed: Callable[[mx.array], mx.array]
    embedding_scale: float
    layers: TrainedLayers
    count: int
    first: int = 0
    recompute: bool = True
    keep: Callable[[], KeptInputs] = list
    look_up: Callable[[], None] = lambda: None

    def kept_results(self) -> dict[int, Results] | None:
        """Return where rows keep each layer's results; None: they are computed again."""
        return None if self.recompute else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel(TrainedStack):
    """The parts of a frozen model, whose layers have changes.

    Attributes:
        layers: the decoder layers.
        logits: hidden states (R, E) after all layers to logits (R, V), differentiable.
        head_rows: rows whose logits are there at once.
        kernels: compute losses of logits; None where MLX or NumPy does.
    """

    layers: LayerVisits[AdaptedBlock]
    logits: Callable[[mx.array], mx.array]
    head_rows: int = HEAD_ROWS
    kernels: KernelEngine | None = None


@dataclass(frozen=True, slots=True)
class StepGradients:
    """A step's loss and derivatives.

    Attributes:
        loss: the mean over all that is asked: nats a token, of texts and answers.
        asked: what the loss is the mean of: tokens that are learned.
        by_changes: derivatives of ``loss``, of each layer.
        figures: what else a person wants to know of the step, by name.
        shares: tokens of each machine, by its name; empty where there is one.
    """

    loss: float
    asked: int
    by_changes: list[Change]
    figures: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, int] = field(default_factory=dict)


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

    def through(self, index: int, layer: TrainedLayer, hidden: mx.array) -> mx.array:
        """Return the states (1, T, E) after a layer, of those before it."""
        kept: Kept = {}
        if self.changes[index]:
            kept = self.dropout(index, self.batch)
        results = None
        if self.results is not None and self.changes[index]:
            results = self.results.setdefault(index, {})
        return layer(index, hidden, self.batch.lengths, self.changes[index], kept, results=results)

    def back(
        self, index: int, layer: TrainedLayer, hidden: mx.array, gradient: mx.array
    ) -> tuple[mx.array, Change]:
        """Return derivatives by a layer's input (1, T, E) and by its change.

        Args:
            index: of the layer.
            layer: itself.
            hidden: what went in.
            gradient: the loss's derivative by what came out.
        """
        change, kept = self.changes[index], self.dropout(index, self.batch)
        results = None if self.results is None else self.results.pop(index, None)
        lengths = self.batch.lengths
        return layer.back(index, hidden, lengths, change, kept, gradient=gradient, results=results)


def upwards(
    model: TrainedStack, rows: Sequence[Rows], *, kept: int = 0
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
                model.look_up()
                states.append(each.through(index, layer, state))
                mx.eval(states[-1])
        hidden = states
    return kept_inputs, hidden


def downwards(
    model: TrainedStack,
    rows: Sequence[Rows],
    kept_inputs: KeptInputs,
    gradients: list[mx.array],
    sums: Sequence[Change],
) -> None:
    """Add derivatives by the changes that rows share to ``sums``, of each layer.

    Args:
        model: the model.
        rows: that went upwards.
        kept_inputs: of theirs, of each changed layer; they are used up.
        gradients: derivatives of the summed loss by their states after all layers; in their place
            come those by their states before the first layer that is changed.
        sums: of derivatives so far.
    """
    for index in reversed(range(model.first, model.count)):
        inputs = kept_inputs.pop()
        with model.layers.layer(index) as layer:
            for place, each in enumerate(rows):
                model.look_up()
                gradients[place], by_own = each.back(index, layer, inputs[place], gradients[place])
                mx.eval(gradients[place], by_own)
                add_to(sums[index], by_own)


def add_to(sums: Change, found: Change) -> None:
    """Add derivatives of a part: one by one, so that few old sums stand beside new ones."""
    for name, array in found.items():
        sums[name] = sums[name] + array if name in sums else array
        mx.eval(sums[name])


def means_of(sums: list[Change], asked: int) -> list[Change]:
    """Return sums, which are used up, divided by what was asked of all."""
    for part in sums:
        for name, array in part.items():
            # at the end, in float32: in 16 bits a small share of a derivative would vanish
            part[name] = array.astype(mx.float32) / asked
            mx.eval(part[name])
    return sums
