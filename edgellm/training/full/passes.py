"""The loss of a step and its derivatives by every number of a model.

Each micro-batch goes up and down before the next one. Of a layer only the input is kept, and where
memory has room the results of its products; downwards it is computed again from that and
differentiated: gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) with a layer a segment.
"""

# T tokens of a micro-batch, E hidden

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.registry import block_class
from edgellm.training.full.arithmetic import rows_summed
from edgellm.training.full.head import head_loss
from edgellm.training.full.layer import LearnedLayers, Results
from edgellm.training.full.weights import EMBEDDING, HEAD, NORM
from edgellm.training.gradients import StepGradients
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch
from edgellm.training.operations.kernel_products import KernelProducts


@dataclass(frozen=True, slots=True)
class _Visit:
    """A layer's visit upwards, as it is kept: its input (1, T, E), and results."""

    hidden: mx.array
    results: Results | None


class LearnedModel:
    """A model whose numbers are arguments of each call, as ``full.weights`` has them.

    Args:
        config: of the model.
        kernels: compute; None where MLX and NumPy do.
        keeps_results: whether the results of products stay in memory from a layer's visit upwards
            to that downwards, which then computes little again.
    """

    def __init__(
        self, config: ModelConfig, kernels: KernelEngine | None, *, keeps_results: bool
    ) -> None:
        self._config, self._keeps_results = config, keeps_results
        self._layers = LearnedLayers(config, kernels)
        self._products = KernelProducts(kernels)
        self._block = block_class(config)
        self._scale = self._block.embedding_scale(config)

    def gradients(self, batches: Sequence[MicroBatch], numbers: Sequence[Change]) -> StepGradients:
        """Return the mean loss over all asked tokens of a step, and its derivatives."""
        asked = sum(len(batch.asked_rows) for batch in batches)
        sums: list[Change] = [{} for _ in numbers]
        loss = sum(self._there_and_back(batch, numbers, sums) for batch in batches)
        for part in sums:
            for name in part:
                part[name] = part[name] / asked
                mx.eval(part[name])
        return StepGradients(loss / asked, asked, sums)

    def loss_of(
        self, batches: Sequence[MicroBatch], numbers: Sequence[Change]
    ) -> tuple[float, int]:
        """Return the loss summed over asked tokens, and how many they are."""
        total = 0.0
        for batch in batches:
            hidden = self._upwards(batch, numbers)
            total += self._head(hidden, batch, numbers[-1], differentiate=False)[0]
        return total, sum(len(batch.asked_rows) for batch in batches)

    def _upwards(
        self, batch: MicroBatch, numbers: Sequence[Change], visits: list[_Visit] | None = None
    ) -> mx.array:
        """Return the states (1, T, E) after all layers, and note each layer's visit."""
        hidden = self._scale * numbers[-1][EMBEDDING][batch.ids]
        for index in range(self._config.num_hidden_layers):
            results: Results | None = {} if self._keeps_results and visits is not None else None
            if visits is not None:
                visits.append(_Visit(hidden, results))
            hidden = self._layers.through(
                index, numbers[index], hidden, batch.lengths, results=results
            )
            mx.eval(hidden)
        return hidden

    def _there_and_back(
        self, batch: MicroBatch, numbers: Sequence[Change], sums: Sequence[Change]
    ) -> float:
        """Return a micro-batch's loss, and add its derivatives to ``sums``."""
        visits: list[_Visit] = []
        hidden = self._upwards(batch, numbers, visits)
        loss, gradient, by_outer = self._head(hidden, batch, numbers[-1])
        del hidden
        _add(sums[-1], by_outer)
        for index in reversed(range(self._config.num_hidden_layers)):
            gradient, by_layer = self._downwards(
                index, visits.pop(), gradient, numbers[index], batch
            )
            _add(sums[index], by_layer)
        rows = self._scale * gradient[0]
        _add(sums[-1], {EMBEDDING: rows_summed(rows, batch.tokens, self._config.vocab_size)})
        return loss

    def _downwards(
        self, index: int, visit: _Visit, gradient: mx.array, tensors: Change, batch: MicroBatch
    ) -> tuple[mx.array, Change]:
        """Return derivatives by a layer's input (1, T, E) and by its numbers."""

        def through(state: mx.array, *arrays: mx.array) -> list[mx.array]:
            own = dict(zip(tensors, arrays, strict=True))
            return [self._layers.through(index, own, state, batch.lengths, results=visit.results)]

        inputs = [visit.hidden, *tensors.values()]
        _, (by_hidden, *by_numbers) = mx.vjp(through, inputs, [gradient])
        mx.eval(by_hidden, by_numbers)
        return by_hidden, dict(zip(tensors, by_numbers, strict=True))

    def _head(
        self, hidden: mx.array, batch: MicroBatch, outer: Change, *, differentiate: bool = True
    ) -> tuple[float, mx.array, Change]:
        """Return the summed loss of asked rows, and its derivatives by states and numbers."""
        rows, name = batch.asked_rows, HEAD if HEAD in outer else EMBEDDING
        places = mx.array(rows)

        def normed(states: mx.array, weight: mx.array) -> list[mx.array]:
            return [self._block.norm(weight, self._config)(states)]

        chosen = hidden[0][places]
        found = head_loss(
            normed(chosen, outer[NORM])[0],
            outer[name],
            batch.targets[rows],
            products=self._products,
            cap=self._config.final_logit_softcapping,
            differentiate=differentiate,
        )
        by_hidden = mx.zeros_like(hidden)
        if not differentiate:
            return found.loss, by_hidden, {}
        _, (by_rows, by_norm) = mx.vjp(normed, [chosen, outer[NORM]], [found.by_states])
        by_hidden[0, places] = by_rows
        mx.eval(by_hidden, by_norm)
        return found.loss, by_hidden, {name: found.by_matrix, NORM: by_norm}


def _add(sums: Change, found: Change) -> None:
    for name, array in found.items():
        sums[name] = sums[name] + array if name in sums else array
        mx.eval(sums[name])
