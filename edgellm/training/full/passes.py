"""The loss of a step and its derivatives by every number of a model.

Each micro-batch goes up and down before the next one. Of a layer only the input is kept; downwards
it is computed again from that and differentiated: gradient checkpointing (Chen et al. 2016,
arXiv:1604.06174) with a layer a segment.
"""

# T tokens of a micro-batch, E hidden

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.models.registry import block_class
from edgellm.training.full.arithmetic import rows_summed
from edgellm.training.full.head import head_loss
from edgellm.training.full.layer import through_layer
from edgellm.training.full.weights import EMBEDDING, HEAD, NORM
from edgellm.training.gradients import StepGradients
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch


class LearnedModel:
    """A model whose numbers are arguments of each call, as ``full.weights`` has them.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
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
            hidden = self._upwards(batch, numbers)[-1]
            total += self._head(hidden, batch, numbers[-1], differentiate=False)[0]
        return total, sum(len(batch.asked_rows) for batch in batches)

    def _upwards(
        self, batch: MicroBatch, numbers: Sequence[Change], kept: int = 1
    ) -> list[mx.array]:
        """Return the last ``kept`` of the states (1, T, E) before and after each layer."""
        states = [self._scale * numbers[-1][EMBEDDING][batch.ids]]
        for index in range(self._config.num_hidden_layers):
            states.append(
                through_layer(self._config, index, numbers[index], states[-1], batch.lengths)
            )
            mx.eval(states[-1])
            del states[:-kept]
        return states

    def _there_and_back(
        self, batch: MicroBatch, numbers: Sequence[Change], sums: Sequence[Change]
    ) -> float:
        """Return a micro-batch's loss, and add its derivatives to ``sums``."""
        *inputs, hidden = self._upwards(batch, numbers, kept=len(numbers))
        loss, gradient, by_outer = self._head(hidden, batch, numbers[-1])
        del hidden
        _add(sums[-1], by_outer)
        for index in reversed(range(self._config.num_hidden_layers)):
            gradient, by_layer = self._downwards(
                index, inputs.pop(), gradient, numbers[index], batch
            )
            _add(sums[index], by_layer)
        rows = self._scale * gradient[0]
        _add(sums[-1], {EMBEDDING: rows_summed(rows, batch.tokens, self._config.vocab_size)})
        return loss

    def _downwards(
        self, index: int, hidden: mx.array, gradient: mx.array, tensors: Change, batch: MicroBatch
    ) -> tuple[mx.array, Change]:
        """Return derivatives by a layer's input (1, T, E) and by its numbers."""

        def through(state: mx.array, *arrays: mx.array) -> list[mx.array]:
            own = dict(zip(tensors, arrays, strict=True))
            return [through_layer(self._config, index, own, state, batch.lengths)]

        _, (by_hidden, *by_numbers) = mx.vjp(through, [hidden, *tensors.values()], [gradient])
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
