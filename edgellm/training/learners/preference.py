"""Low-rank changes that learn which of two answers is preferred, without a model of rewards.

Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): the chosen answer is to
become more likely than the rejected one, measured from a reference, which is the same model without
what is learned: plain, or with the adapter that training begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.training.gradients import Rows, StepGradients, downwards, means_of, upwards
from edgellm.training.learners.adapted_model import AdaptedModel
from edgellm.training.learners.learner import Losses
from edgellm.training.learners.token_loss import head_gradients, row_losses
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import MicroBatch, PreferencePair, micro_batches

Doubles = npt.NDArray[np.float64]


class PreferenceLearner(AdaptedModel):
    """An adapter that learns preferences.

    The reference's sequences go through each layer while it is in memory for the others: there is
    no second model, and no second read.

    Args:
        beta: how much a change of likelihood counts; the smaller, the farther from the reference.
        rest: as ``AdaptedModel`` has it.
    """

    def __init__(self, *args: Any, beta: float, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._beta = beta
        self._reference: list[Change] = [{} for _ in range(self._model.count)]
        if self._start is not None:  # as TRL has it: the adapter as it was
            self._reference = self._start.numbers()

    def gradients(
        self, items: Sequence[PreferencePair], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return the mean loss of the pairs, and its derivatives."""
        batches = self._batches(items)
        self._dropout.step = step
        rows = [
            Rows(batch, numbers, self._dropout, self._model.kept_results()) for batch in batches
        ]
        with self._round():
            kept_inputs, hidden = upwards(
                self._model, [*rows, *self._beside(batches)], kept=len(rows)
            )
            margins = self._margins(hidden, batches)
            del hidden[len(rows) :]
            # the loss's derivative by the log-probability of a chosen answer, its sign turned
            pull = self._beta / (1 + np.exp(margins))
            weights = np.stack([pull, -pull], axis=-1).ravel()
            gradients, begin = [], 0
            for states, batch in zip(hidden, batches, strict=True):
                own = weights[begin : begin + len(batch.sequences)]
                by_row = np.repeat(own, [each.asked for each in batch.sequences])
                gradients.append(
                    head_gradients(self._model, states, batch, by_row.astype(np.float32))[1]
                )
                begin += len(batch.sequences)
            del hidden
            sums: list[Change] = [{} for _ in numbers]
            downwards(self._model, rows, kept_inputs, gradients, sums)
        loss = float(_losses(margins).mean())
        return StepGradients(loss, len(items), means_of(sums, len(items)), _figures(margins))

    def loss_of(self, items: Sequence[PreferencePair], numbers: Sequence[Change]) -> Losses:
        """Return the loss of pairs."""
        batches = self._batches(items)
        rows = [Rows(batch, numbers) for batch in batches]
        with self._way_up():
            _, hidden = upwards(self._model, [*rows, *self._beside(batches)])
            margins = self._margins(hidden, batches)
        return Losses(float(_losses(margins).sum()), len(items), _figures(margins))

    def _batches(self, items: Sequence[PreferencePair]) -> list[MicroBatch]:
        """Return the sequences of pairs, of each the chosen one first; a cut may part a pair."""
        sequences = [one for pair in items for one in (pair.chosen, pair.rejected)]
        return micro_batches(sequences, self._micro_tokens)

    def _beside(self, batches: Sequence[MicroBatch]) -> list[Rows]:
        return [Rows(batch, self._reference) for batch in batches]

    def _margins(self, hidden: Sequence[mx.array], batches: Sequence[MicroBatch]) -> Doubles:
        """Return by how much each pair's chosen answer gained on its rejected one.

        Args:
            hidden: states of all batches after all layers, and the reference's.
            batches: theirs.
        """
        own = self._likelihoods(hidden[: len(batches)], batches)
        theirs = self._likelihoods(hidden[len(batches) :], batches)
        gained = own - theirs
        return self._beta * (gained[::2] - gained[1::2])

    def _likelihoods(self, hidden: Sequence[mx.array], batches: Sequence[MicroBatch]) -> Doubles:
        """Return the log-probability of each sequence's answer."""
        sums = []
        for states, batch in zip(hidden, batches, strict=True):
            losses = row_losses(self._model, states, batch)
            begin = 0
            for each in batch.sequences:
                sums.append(-losses[begin : begin + each.asked].sum(dtype=np.float64))
                begin += each.asked
        return np.array(sums)


def _losses(margins: Doubles) -> Doubles:
    """Return -log sigmoid of margins."""
    losses: Doubles = np.logaddexp(0, -margins)
    return losses


def _figures(margins: Doubles) -> dict[str, float]:
    """Return the mean margin, and the share of pairs whose chosen answer gained more."""
    return {"margin": float(margins.mean()), "accuracy": float((margins > 0).mean())}
