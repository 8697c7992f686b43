"""A round on a client: its records are learned, beginning with the server's numbers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.console.units import plural
from edgellm.device.machine import peak_process_memory
from edgellm.errors import ConfigError, NotFiniteError
from edgellm.federation.factors import DOWN, UP, Layout, as_changes, as_floats, layout_of
from edgellm.federation.privacy import Privacy
from edgellm.federation.task import Answer, Lesson, Task, lesson_from
from edgellm.hub.resolve import locate
from edgellm.settings import LoadSettings
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.data.records import read_records
from edgellm.training.gradients import StepGradients
from edgellm.training.learners.learner import Learner, Losses
from edgellm.training.low_rank import Change
from edgellm.training.run.preparation import Preparation, prepare
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.trainer import Trainer

Say = Callable[[str], None]


def shapes_digest(config: ModelConfig) -> str:
    """Return a digest of what an adapter has to fit: the shapes of layers, and their number."""
    text = repr((config.num_hidden_layers, sorted(config.tensor_shapes().items())))
    return hashlib.sha256(text.encode()).hexdigest()


class LocalLearning:
    """A client's model and records, which learn one round after another.

    The model opens with the first round, since how much memory learning takes follows from what
    the server asks for.

    Args:
        model: name or path.
        data: the file of records.
        load: which memory and arithmetic.
        folder: where the adapter goes at the end; None: nowhere.
        valid: records that are not learned, whose loss is told; None: none.
        privacy: how updates are blurred; None: they are sent as they are.
        say: tells a person what happens.
    """

    def __init__(
        self,
        *,
        model: str,
        data: Path,
        load: LoadSettings,
        folder: Path | None = None,
        valid: Path | None = None,
        privacy: Privacy | None = None,
        say: Say = print,
    ) -> None:
        self._model, self._data, self._load = model, data, load
        self._folder, self._valid, self._privacy, self._say = folder, valid, privacy, say
        self._plain: Mapping[str, Any] | None = None
        self._lesson: Lesson | None = None
        self._layout: Layout | None = None
        self._prepared: Preparation[Any] | None = None
        self._learner: Learner[Any] | None = None
        self._blurred = 0
        for path in filter(None, (data, valid)):
            read_records(path)  # what is wrong with them is said before anybody waits for them
        checkpoint = read_checkpoint(locate(model))
        self._config = checkpoint.config

    def answer(self, task: Task) -> Answer:
        """Return what was learned, or at the end that it is over.

        Raises:
            ConfigError, FormatError, MemoryBudgetError: the task does not fit this client.
            NotFiniteError, ReadError: learning failed; the next round may succeed.
        """
        self._take(task)
        if task.kind == "end":
            return self._end(task)
        return self._learn(task)

    def close(self) -> None:
        """Free the model."""
        learner, self._learner = self._learner, None
        if learner is not None:
            learner.close()

    def _take(self, task: Task) -> None:
        """Make ready for a task: the first one opens the model."""
        if task.shapes != shapes_digest(self._config):
            raise ConfigError(
                f"{self._model} has layers of other shapes than the server's model",
                hint="use the same model on all machines; 4 bits beside 16 are allowed",
            )
        if self._plain == task.lesson:
            return
        self.close()
        lesson = lesson_from(task.lesson)
        if self._privacy is not None and not lesson.freeze_a:
            raise ConfigError(
                "updates of both factors cannot be blurred so that their mean is of use",
                hint="start the server with --freeze-a, or this client without --clip-update",
            )
        request = TrainRequest(
            model=self._model,
            data=self._data,
            folder=self._folder or self._data.with_name(f"{self._data.name}.federation"),
            settings=lesson.settings,
            load=self._load,
            valid=self._valid,
            template=lesson.template,
            max_tokens=lesson.max_tokens,
        )
        self._prepared = prepared = prepare(request)
        self._lesson, self._layout = lesson, layout_of(self._config, lesson.settings.lora)
        self._learner = prepared.open()
        self._plain = task.lesson
        for sentence in prepared.said_of_records():
            self._say(sentence)
        self._say(prepared.memory.in_words())

    def _learn(self, task: Task) -> Answer:
        begun = time.perf_counter()
        prepared, lesson, layout, learner = self._opened()
        before = layout.numbers_of(task.numbers, "the server")
        per_round = lesson.settings.steps_of(len(prepared.items))
        done = (task.round - 1) * per_round
        own: Learner[Any] = learner
        first = as_changes(before)
        if lesson.freeze_a:
            own = UpLearner(learner, first)
            first = [_ups(change) for change in first]
        settings = replace(lesson.settings, steps=done + per_round)
        trainer = Trainer(own, prepared.items, settings)
        trainer.numbers, trainer.step = first, done
        figures: dict[str, float] = {}
        if prepared.valid:
            figures["valid"] = trainer.loss_of(prepared.valid).loss
            self._say(f"round {task.round}: {figures['valid']:.4f} nats on other records, before")
        losses = [(step.loss, step.asked) for step in trainer.run() if step.applied]
        if not losses:
            raise NotFiniteError(
                f"no step of round {task.round} had a finite loss",
                hint="start the server with a smaller --rate",
            )
        figures["loss"] = sum(loss * asked for loss, asked in losses) / sum(
            asked for _, asked in losses
        )
        learned = as_floats(trainer.numbers)
        sent = layout.only(UP) if lesson.freeze_a else layout
        row = sent.row_of(learned)
        self._say(
            f"round {task.round} of {task.rounds}: loss {figures['loss']:.4f} nats, "
            f"{plural(len(losses), 'step')}"
        )
        weight = float(len(prepared.items))
        if self._privacy is not None:
            row = self._blur(row, sent.row_of(before), task.round)
            weight = 1.0
            figures = self._told()
        return Answer(
            numbers=row,
            weight=weight,
            seconds=time.perf_counter() - begun,
            memory=peak_process_memory(),
            figures=figures,
        )

    def _end(self, task: Task) -> Answer:
        begun = time.perf_counter()
        prepared, lesson, layout, learner = self._opened()
        last = as_changes(layout.numbers_of(task.numbers, "the server"))
        figures: dict[str, float] = {}
        if prepared.valid:
            trainer = Trainer(learner, prepared.items, lesson.settings)
            trainer.numbers = last
            figures["valid"] = trainer.loss_of(prepared.valid).loss
            self._say(f"the end: {figures['valid']:.4f} nats on other records")
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_adapter(self._folder, last, lesson.settings.lora, base=self._model)
        return Answer(
            numbers=np.zeros(0, np.float32),
            weight=1.0,
            seconds=time.perf_counter() - begun,
            memory=peak_process_memory(),
            figures=figures if self._privacy is None else {},
        )

    def _blur(self, row: Any, before: Any, number: int) -> Any:
        privacy = self._privacy
        assert privacy is not None, "it is asked before"
        sent = before + privacy.blurred(row - before)
        self._blurred += 1
        epsilon = privacy.epsilon(self._blurred)
        if epsilon is None:
            self._say(f"round {number}: the update is clipped; without noise nothing is proven")
        else:
            self._say(
                f"round {number}: epsilon {epsilon:.3g} so far, delta {privacy.delta:g}, for all "
                "records of this client against whoever sees its updates"
            )
        return sent

    def _told(self) -> dict[str, float]:
        """Return what a client tells whose data are private: how private, and no loss."""
        assert self._privacy is not None, "it is asked before"
        epsilon = self._privacy.epsilon(self._blurred)
        if epsilon is None:
            return {}
        return {"epsilon": epsilon, "delta": self._privacy.delta}

    def _opened(self) -> tuple[Preparation[Any], Lesson, Layout, Learner[Any]]:
        assert self._prepared is not None, "a task was taken"
        assert self._lesson is not None, "so there is a lesson"
        assert self._layout is not None, "and a layout"
        assert self._learner is not None, "and an open model"
        return self._prepared, self._lesson, self._layout, self._learner


class UpLearner:
    """A learner whose numbers are the B's alone; the A's stay as they are.

    Args:
        learner: of both.
        changes: both, of which the A's are taken.
    """

    def __init__(self, learner: Learner[Any], changes: Sequence[Change]) -> None:
        self._learner = learner
        self._fixed = [
            {name: array for name, array in change.items() if name.endswith(DOWN)}
            for change in changes
        ]
        self._ups = [_ups(change) for change in changes]

    def initial(self) -> list[Change]:
        """Return the B's as they were given."""
        return self._ups

    def gradients(
        self, items: Sequence[Any], numbers: Sequence[Change], step: int
    ) -> StepGradients:
        """Return a step's loss and its derivatives by the B's."""
        found = self._learner.gradients(items, self._both(numbers), step)
        return replace(found, by_changes=[_ups(change) for change in found.by_changes])

    def loss_of(self, items: Sequence[Any], numbers: Sequence[Change]) -> Losses:
        """Return the loss of items."""
        return self._learner.loss_of(items, self._both(numbers))

    def write(self, folder: Path, numbers: Sequence[Change]) -> None:
        """Write the adapter. Raises ConversionError."""
        self._learner.write(folder, self._both(numbers))

    def close(self) -> None:
        """Free the model."""
        self._learner.close()

    def _both(self, numbers: Sequence[Change]) -> list[Change]:
        return [{**fixed, **own} for fixed, own in zip(self._fixed, numbers, strict=True)]


def _ups(change: Change) -> Change:
    return {name: array for name, array in change.items() if name.endswith(UP)}
