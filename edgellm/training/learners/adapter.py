"""Low-rank changes that lower the loss of answers and texts: supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.training.gradients import StepGradients
from edgellm.training.learners.adapted_model import AdaptedModel
from edgellm.training.learners.learner import Losses
from edgellm.training.learners.token_loss import step_gradients, step_loss
from edgellm.training.low_rank import Change
from edgellm.training.micro_batch import TrainingSequence, micro_batches


class AdapterLearner(AdaptedModel):
    """An adapter that learns answers and texts, token by token."""

    def gradients(
        self, items: Sequence[TrainingSequence], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return the mean loss of the tokens that are learned, and its derivatives."""
        batches = micro_batches(items, self._micro_tokens)
        self._dropout.step = step
        with self._round():
            return step_gradients(self._model, batches, numbers, dropout=self._dropout)

    def loss_of(self, items: Sequence[TrainingSequence], numbers: Sequence[Change]) -> Losses:
        """Return the loss of the tokens that are learned."""
        with self._way_up():
            total, asked = step_loss(self._model, micro_batches(items, self._micro_tokens), numbers)
        return Losses(total, asked)
