"""The steps of a training run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import NotFiniteError
from edgellm.training.adapter_folder import AdapterFormat, write_adapter
from edgellm.training.gradients import TrainedModel, step_gradients, step_loss
from edgellm.training.low_rank import Change, initial_changes
from edgellm.training.micro_batch import TrainingSequence, micro_batches
from edgellm.training.optimizer import AdamW, clipped, norm_of
from edgellm.training.run.order import Dropout, step_items
from edgellm.training.run.saved_state import SavedState
from edgellm.training.run.settings import TrainSettings

MOST_REFUSED = 2
"""Steps in a row that are not applied, before a run gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """A step.

    Attributes:
        step: its number, from 1.
        steps: of the run.
        epoch: its number, from 1.
        ends_epoch: whether every sequence was learned once more.
        loss: nats a token, before the step.
        rate: of learning.
        norm: of all derivatives together, before they are clipped.
        tokens: that went through the model.
        asked: of them, those that were learned.
        seconds: that it took.
        applied: false where loss or derivatives are not finite: then nothing was learned.
    """

    step: int
    steps: int
    epoch: int
    ends_epoch: bool
    loss: float
    rate: float
    norm: float
    tokens: int
    asked: int
    seconds: float
    applied: bool = True


class Trainer:
    """A run over sequences, whose numbers and moments it holds.

    Args:
        model: an open model.
        config: of the model.
        sequences: what is learned.
        settings: how.
        state: where to go on; None begins.
    """

    def __init__(
        self,
        model: TrainedModel,
        config: ModelConfig,
        sequences: Sequence[TrainingSequence],
        settings: TrainSettings,
        state: SavedState | None = None,
    ) -> None:
        self._model, self._config = model, config
        self._sequences, self._settings = sequences, settings
        self._optimizer = AdamW(settings.rates)
        self._dropout = Dropout(config, settings.lora, settings.seed)
        self._refused = 0
        self.step: int = 0
        self.history: list[Mapping[str, Any]] = []
        # of the epoch under way: each step's, and the tokens that it is the mean of
        self.losses: list[tuple[float, int]] = []
        if state is None:
            self.changes: list[Change] = initial_changes(config, settings.lora, settings.seed)
        else:
            self.changes, self.step, self.history = state.numbers, state.step, state.history
            self.losses = state.losses
            self._optimizer.means, self._optimizer.squares = state.means, state.squares
            self._optimizer.step = state.updates

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self._settings.steps_of(len(self._sequences))

    def run(self) -> Iterator[StepReport]:
        """Yield each step that is left, as it is taken.

        Raises:
            NotFiniteError: losses or derivatives are not finite, twice in a row.
            ReadError: a layer cannot be read.
        """
        while self.step < self.steps:
            yield self._take_step()

    def loss_of(self, sequences: Sequence[TrainingSequence]) -> float:
        """Return the loss of sequences, nats a token, with the numbers so far."""
        total, asked = 0.0, 0
        # as many at once as a step has: memory is planned for those
        for begin in range(0, len(sequences), self._settings.batch):
            some = sequences[begin : begin + self._settings.batch]
            batches = micro_batches(some, self._settings.micro_tokens)
            try:
                loss, count = step_loss(self._model, batches, self.changes)
            finally:
                self._model.layers.restart()
            total, asked = total + loss, asked + count
        return total / max(1, asked)

    def end_epoch(self) -> float | None:
        """Return the mean loss of the epoch that ends, nats a token; None where none was taken."""
        tokens = sum(asked for _, asked in self.losses)
        total = sum(loss * asked for loss, asked in self.losses)
        self.losses = []
        return total / tokens if tokens else None

    def state(self, facts: Mapping[str, Any]) -> SavedState:
        """Return where the run is."""
        return SavedState(
            self.step,
            self._optimizer.step,
            self.changes,
            self._optimizer.means,
            self._optimizer.squares,
            facts,
            self.history,
            self.losses,
        )

    def save(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        *,
        base: str,
        form: AdapterFormat,
    ) -> None:
        """Write the run and its adapter. The run's file comes first: from it the rest is made."""
        self.state(facts).write(folder)
        write_adapter(folder, self.changes, self._settings.lora, base=base, form=form)

    def _take_step(self) -> StepReport:
        begun = time.perf_counter()
        settings, number = self._settings, self.step
        items = step_items(self._sequences, number, batch=settings.batch, seed=settings.seed)
        batches = micro_batches(items, settings.micro_tokens)
        self._dropout.step = number
        try:
            found = step_gradients(self._model, batches, self.changes, dropout=self._dropout)
        except BaseException:
            self._model.layers.restart()
            raise
        norm = norm_of(found.by_changes)
        rate = settings.rates.at(number, self.steps)
        applied = math.isfinite(found.loss) and math.isfinite(norm)
        if applied:
            gradients = clipped(found.by_changes, norm, settings.rates.clip)
            self.changes = self._optimizer.update(self.changes, gradients, rate)
            self.losses.append((found.loss, found.asked))
            self._refused = 0
        else:
            self._refused += 1
            if self._refused >= MOST_REFUSED:
                raise NotFiniteError(
                    f"loss or derivatives of steps {number} and {number + 1} are not finite",
                    hint="begin anew in another folder with a smaller --rate",
                )
        self.step = number + 1
        per_epoch = settings.steps_an_epoch(len(self._sequences))
        return StepReport(
            step=self.step,
            steps=self.steps,
            epoch=number // per_epoch + 1,
            ends_epoch=self.step % per_epoch == 0,
            loss=found.loss,
            rate=rate,
            norm=norm,
            tokens=sum(len(item.tokens) for item in items),
            asked=found.asked,
            seconds=time.perf_counter() - begun,
            applied=applied,
        )
