"""The loss of a step and its derivatives by every number of a model.

Each micro-batch goes up and down before the next one, as ``training/gradients.py`` has it: no layer
is read, and so inputs of one alone need be kept.
"""

# T tokens of a micro-batch, E hidden

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.kernels.kernel_engine import KernelEngine
from edgellm.models.registry import block_class
from edgellm.training.full.arithmetic import rows_summed
from edgellm.training.full.head import head_loss
from edgellm.training.full.layer import LearnedLayers
from edgellm.training.full.weights import EMBEDDING, HEAD, NORM
from edgellm.training.gradients import (
    Rows,
    StepGradients,
    TrainedStack,
    add_to,
    downwards,
    means_of,
    upwards,
)
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch
from edgellm.training.operations.kernel_products import KernelProducts


class LearnedModel:
    """A model whose numbers are arguments of each call, as ``full.weights`` has them.

    Args:
        config: of the model.
        kernels: compute; None where MLX and NumPy do.
        keeps_results: whether the results of products stay in memory from a layer's visit upwards
            to that downwards, which then computes little again.
        look_up: called before each visit of a layer; it may raise.
    """

    def __init__(
        self,
        config: ModelConfig,
        kernels: KernelEngine | None,
        *,
        keeps_results: bool,
        look_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._config, self._keeps_results = config, keeps_results
        self._layers = LearnedLayers(config, kernels, look_up)
        self._products = KernelProducts(kernels)
        self._block = block_class(config)
        self._scale = self._block.embedding_scale(config)

    def gradients(self, batches: Sequence[MicroBatch], numbers: Sequence[Change]) -> StepGradients:
        """Return the mean loss over all asked tokens of a step, and its derivatives."""
        asked = sum(len(batch.asked_rows) for batch in batches)
        sums: list[Change] = [{} for _ in numbers]
        loss = sum(self._there_and_back(batch, numbers, sums) for batch in batches)
        return StepGradients(loss / asked, asked, means_of(sums, asked))

    def loss_of(
        self, batches: Sequence[MicroBatch], numbers: Sequence[Change]
    ) -> tuple[float, int]:
        """Return the loss summed over asked tokens, and how many they are."""
        total = 0.0
        for batch in batches:
            _, [hidden] = upwards(self._stack(numbers), [Rows(batch, numbers)])
            total += self._head(hidden, batch, numbers[-1], differentiate=False)[0]
        return total, sum(len(batch.asked_rows) for batch in batches)

    def _stack(self, numbers: Sequence[Change]) -> TrainedStack:
        return TrainedStack(
            embed=lambda ids: numbers[-1][EMBEDDING][ids],
            embedding_scale=self._scale,
            layers=self._layers,
            count=self._config.num_hidden_layers,
            recompute=not self._keeps_results,
        )

    def _there_and_back(
        self, batch: MicroBatch, numbers: Sequence[Change], sums: Sequence[Change]
    ) -> float:
        """Return a micro-batch's loss, and add its derivatives to ``sums``."""
        stack = self._stack(numbers)
        rows = [Rows(batch, numbers, results=stack.kept_results())]
        kept_inputs, hidden = upwards(stack, rows, kept=1)
        loss, gradient, by_outer = self._head(hidden.pop(), batch, numbers[-1])
        add_to(sums[-1], by_outer)
        gradients = [gradient]
        del gradient, by_outer
        downwards(stack, rows, kept_inputs, gradients, sums)
        by_rows = self._scale * gradients[0][0]
        vocabulary = self._config.vocab_size
        add_to(sums[-1], {EMBEDDING: rows_summed(by_rows, batch.tokens, vocabulary)})
        return loss

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
