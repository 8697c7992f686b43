"""The steps of a training run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from edgellm.device.held_signals import signals_held
from edgellm.errors import NotFiniteError
from edgellm.training.data.rendering import listed_lines
from edgellm.training.learners.learner import Learner, TrainingItem
from edgellm.training.low_rank import Change
from edgellm.training.optimizer import AdamW, clip_factor, norm_of
from edgellm.training.run.order import step_items
from edgellm.training.run.saved_state import SavedState, are_finite
from edgellm.training.run.settings import TrainSettings

Item = TypeVar("Item", bound=TrainingItem)

EpochPart = tuple[float, int, Mapping[str, float]]
"""A mean loss, how much it is the mean of, and further means."""

MOST_REFUSED = 2
"""Steps in a row that are not applied, before a run gives up."""


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """The loss of many items.

    Attributes:
        loss: the mean over what is asked.
        figures: what else a person wants to know, by name: means likewise.
    """

    loss: float
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """A step.

    Attributes:
        step: its number, from 1.
        steps: of the run.
        epoch: its number, from 1.
        ends_epoch: whether every sequence was learned once more.
        loss: the mean over ``asked`` (nats a token, of texts and answers), before the step.
        rate: of learning.
        norm: of all derivatives together, before they are clipped.
        tokens: that went through the model.
        asked: what the loss is the mean of: of the tokens, those that are learned.
        seconds: that it took.
        applied: false where loss or derivatives are not finite: then nothing was learned.
        lines: of the records of a step that was not applied.
        figures: what else a person wants to know of it, by name.
        shares: tokens of each machine, by its name; empty where there is one.
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
    lines: Sequence[int] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, int] = field(default_factory=dict)


class Trainer(Generic[Item]):
    """A run over sequences, whose numbers and moments it holds.

    Args:
        learner: has the numbers and their loss.
        items: what is learned.
        settings: how.
        state: where to go on; None begins.
    """

    def __init__(
        self,
        learner: Learner[Item],
        items: Sequence[Item],
        settings: TrainSettings,
        state: SavedState | None = None,
    ) -> None:
        self._learner, self._items, self._settings = learner, items, settings
        self._optimizer = AdamW(settings.rates)
        self._refused = 0
        self.step: int = 0
        self.history: list[Mapping[str, Any]] = []
        # of the epoch under way: each step's, and the tokens or pairs that it is the mean of
        self.losses: list[EpochPart] = []
        if state is None:
            # dicts of its own, whose arrays each step replaces
            self.numbers: list[Change] = [dict(change) for change in learner.initial()]
        else:
            self.numbers, self.step, self.history = state.numbers, state.step, state.history
            self.losses = state.losses
            self._optimizer.means, self._optimizer.squares = state.means, state.squares
            self._optimizer.step = state.updates

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self._settings.steps_of(len(self._items))

    def run(self) -> Iterator[StepReport]:
        """Yield each step that is left, as it is taken.

        Raises:
            NotFiniteError: losses or derivatives are not finite, twice in a row.
            ReadError: a layer cannot be read.
        """
        while self.step < self.steps:
            yield self._take_step()

    def loss_of(self, items: Sequence[Item]) -> MeanLoss:
        """Return the mean loss of items with the numbers so far."""
        parts: list[EpochPart] = []
        # as many at once as a step has: memory is planned for those
        for begin in range(0, len(items), self._settings.batch):
            some = items[begin : begin + self._settings.batch]
            found = self._learner.loss_of(some, self.numbers)
            parts.append((found.total / max(1, found.asked), found.asked, found.figures))
        return _mean(parts)

    @property
    def epoch(self) -> int:
        """The epoch that the last step is of, from 1; 0 before the first."""
        return -(-self.step // self._settings.steps_an_epoch(len(self._items)))

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether the last step ends an epoch or the run, and the epoch is not told yet."""
        ends = self.step % self._settings.steps_an_epoch(len(self._items)) == 0
        told = bool(self.history) and self.history[-1].get("step") == self.step
        return self.step > 0 and not told and (ends or self.step == self.steps)

    def told(self, epoch: Mapping[str, Any]) -> None:
        """Note an epoch that was told; where it is not over, it is told again at its end."""
        self.history.append(epoch)
        if self.step % self._settings.steps_an_epoch(len(self._items)) == 0:
            self.losses = []

    @property
    def learns(self) -> bool:
        """Whether a step that is left has a rate above 0."""
        steps = range(self.step, self.steps)
        return any(self._settings.rates.at(step, self.steps) > 0 for step in steps)

    @property
    def epoch_loss(self) -> MeanLoss | None:
        """The mean loss of the epoch under way; None where no step was taken."""
        return _mean(self.losses) if self.losses else None

    def state(self, facts: Mapping[str, Any]) -> SavedState:
        """Return where the run is."""
        return SavedState(
            self.step,
            self._optimizer.step,
            self.numbers,
            self._optimizer.means,
            self._optimizer.squares,
            facts,
            self.history,
            self.losses,
        )

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the run and what it learned. The run's file comes first: the rest is made of it.

        Raises:
            NotFiniteError: numbers are not finite; what was saved before stays.
            ConversionError: the disk refuses.
        """
        if not are_finite(self.numbers):
            raise NotFiniteError(
                f"what is learned is not finite any more after step {self.step}",
                hint="begin anew in another folder with a smaller --rate",
            )
        self.state(facts).write(folder)
        self._learner.write(folder, self.numbers)

    def free(self) -> None:
        """Forget the numbers, their moments and the learner: no step is taken any more."""
        self.numbers = []
        del self._learner
        self._optimizer.means, self._optimizer.squares = [], []

    def _take_step(self) -> StepReport:
        begun = time.perf_counter()
        settings, number = self._settings, self.step
        items = step_items(self._items, number, batch=settings.batch, seed=settings.seed)
        # what is not finite is told below, not in warnings of NumPy's
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = self._learner.gradients(items, self.numbers, number)
            norm = norm_of(found.by_changes)
        rate = settings.rates.at(number, self.steps)
        applied = math.isfinite(found.loss) and math.isfinite(norm)
        lines: list[int] = []
        if applied:
            factor = clip_factor(norm, settings.rates.clip)
            with signals_held():  # a step is taken whole, or not at all
                self._optimizer.move(self.numbers, found.by_changes, rate, factor)
                self.losses.append((found.loss, found.asked, found.figures))
                self.step = number + 1
            self._refused = 0
        else:
            lines = sorted({item.line for item in items if item.line})
            self._refused += 1
            if self._refused >= MOST_REFUSED:
                of_records = f": {listed_lines(lines, 'record')}" if lines else ""
                raise NotFiniteError(
                    f"loss or derivatives of steps {number} and {number + 1} are not finite"
                    f"{of_records}",
                    hint="begin anew in another folder with a smaller --rate",
                )
            self.step = number + 1
        per_epoch = settings.steps_an_epoch(len(self._items))
        return StepReport(
            step=self.step,
            steps=self.steps,
            epoch=number // per_epoch + 1,
            ends_epoch=self.step % per_epoch == 0,
            loss=found.loss,
            rate=rate,
            norm=norm,
            tokens=sum(item.length for item in items),
            asked=found.asked,
            seconds=time.perf_counter() - begun,
            applied=applied,
            lines=lines,
            figures=found.figures,
            shares=found.shares,
        )


def _mean(parts: Sequence[EpochPart]) -> MeanLoss:
    """Return the mean over all that the parts are means of."""
    asked = max(1, sum(count for _, count, _ in parts))
    names = parts[0][2] if parts else ()
    figures = {name: sum(own[name] * count for _, count, own in parts) / asked for name in names}
    return MeanLoss(sum(loss * count for loss, count, _ in parts) / asked, figures)
