"""A whole training run: data, memory, steps, saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mlx.core as mx

from edgellm.converters.destination import destination_path, make_folder_of
from edgellm.device.held_signals import signals_held
from edgellm.device.machine import release_free_memory
from edgellm.errors import ConversionError
from edgellm.files.atomic import write_file
from edgellm.files.file_lock import file_lock
from edgellm.files.refusals import write_error
from edgellm.runtime.loader import SendProgress
from edgellm.training.answers.kept_answers import Ask, KeptAnswers
from edgellm.training.data.conversations import Template
from edgellm.training.data.rendering import Rendered
from edgellm.training.full.memory import FullMemory
from edgellm.training.learners.adapter_memory import TrainingMemory
from edgellm.training.low_rank import count_numbers
from edgellm.training.page.step_log import StepLog
from edgellm.training.page.training_page import PageFacts, training_page
from edgellm.training.run.page_facts import PAGE, data_table, page_facts
from edgellm.training.run.preparation import Preparation, prepare
from edgellm.training.run.request import TrainRequest
from edgellm.training.run.saved_state import require_room
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.trainer import MeanLoss, StepReport, Trainer
from edgellm.training.together.learner import TogetherLearner

__all__ = ["EpochReport", "StepReport", "TrainRequest", "TrainingRun", "open_run"]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """An epoch.

    Attributes:
        epoch: its number, from 1; 0 before the first.
        train: mean loss of its steps; None before the first.
        valid: loss of the records that are not learned; None without any.
        step: steps taken when it ended.
        bits_per_byte: the same of their text, where all of it is counted.
        figures: what else a person wants to know of its steps, by name.
        valid_figures: the same of the records that are not learned.
    """

    epoch: int
    train: float | None
    valid: float | None
    step: int = 0
    bits_per_byte: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    valid_figures: Mapping[str, float] = field(default_factory=dict)


Show = Callable[[], AbstractContextManager[Callable[[str], None]]]


def _show_nothing() -> AbstractContextManager[Callable[[str], None]]:
    return nullcontext(lambda _name: None)


class TrainingRun:
    """A run that is ready: data are read, memory is planned, and the model is open.

    Args:
        request: what is asked for.
        ask: asks the model questions before it opens here, and after; None asks nothing.
        show: shows what is being done while it lasts; yields a callback of its name.
        sending: told of what is sent to other machines that have not got the model.

    Attributes:
        answers: to these questions.
        template: that the records are written in.
        data: the records as sequences.
        memory: what it takes.
        trainer: takes the steps.
        notes: what a person should know of its records and its length, in sentences.
        saved: steps of the last whole save; None: there is none yet.
    """

    def __init__(
        self,
        request: TrainRequest,
        ask: Ask | None = None,
        show: Show = _show_nothing,
        sending: SendProgress | None = None,
    ) -> None:
        with show() as doing:
            doing("reading the records")
            prepared = prepare(request, sending)
        self._request = request = prepared.request
        self.template: Template = prepared.template
        self.data: Rendered = prepared.data
        self.memory: TrainingMemory | FullMemory = prepared.memory
        self._valid_bytes = prepared.held_out.text_bytes
        self._valid, self._facts = prepared.valid, prepared.facts
        self.answers: KeptAnswers = KeptAnswers(
            request.folder,
            ask,
            count=request.answers,
            seed=request.settings.seed,
            resume=request.resume,
        )
        start = None if request.start is None else request.start.folder
        self.answers.before(prepared.asked_of, prepared.tokenizer, request.model, start)
        self.saved: int | None = None if prepared.state is None else prepared.state.step
        self._learner = prepared.open()
        self._is_open = True
        try:
            self._begin(prepared)
        except BaseException:
            self.close()
            raise

    def _begin(self, prepared: Preparation[Any]) -> None:
        """Take numbers and steps from where the run is; its learner is open."""
        request = self._request
        self._together: TogetherLearner[Any] | None = None
        if isinstance(self._learner, TogetherLearner):
            self._together = self._learner
            if prepared.state is not None:
                self._together.go_on(prepared.state.facts)
        self._machines = dict(self._together.memories) if self._together is not None else {}
        self.trainer: Trainer[Any] = Trainer(
            self._learner, prepared.items, request.settings, prepared.state
        )
        said = prepared.said_of_records()
        self.notes: list[str] = [
            *said,
            *_notes(self.trainer, prepared, request),
            *(f"{name}: {words}" for name, words in self._machines.items()),
            *(self._together.notes if self._together is not None else ()),
        ]
        self._data_table = data_table(self.data, len(self._valid), said)
        self._log = StepLog(request.folder, self.trainer.step)
        self._learned = count_numbers(self.trainer.numbers)
        self._begun_at = self.trainer.step

    @property
    def settings(self) -> TrainSettings:
        """How it goes, as it follows from what was asked for."""
        return self._request.settings

    def run(self) -> Iterator[StepReport | EpochReport]:
        """Yield steps and epochs as they end; each save is whole before the next step.

        Raises:
            NotFiniteError: losses are not finite, twice in a row.
            ConversionError: the disk refuses.
            ReadError: a layer cannot be read.
        """
        trainer = self.trainer
        require_room(destination_path(self._request.folder), self._learned)
        self.save()  # where the disk refuses, it does so now
        self.answers.save()
        if self._valid and not trainer.history:
            before = self._epoch(0, None)
            trainer.history.append(asdict(before))
            yield before
        if trainer.at_end_of_epoch:  # the run was stopped before the epoch was told
            yield self._end_epoch()
        every = self._request.settings.save_every
        for report in trainer.run():
            self._log.add(asdict(report))
            yield report
            if trainer.at_end_of_epoch:
                yield self._end_epoch()
            elif every and report.step % every == 0:
                self.save()

    def save(self) -> None:
        """Write the run, its adapter and its page as they are. Raises ConversionError."""
        request = self._request
        folder = destination_path(request.folder)  # a link may lead to where nothing is yet
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(request.folder, error) from error
        self._log.save()  # first: it may have steps that the run takes again, and never too few
        of_machines = {} if self._together is None else self._together.facts()
        self.trainer.save(request.folder, {**self._facts, **of_machines})
        self.saved = self.trainer.step
        self._save_page()

    def answer(self) -> None:
        """Let the model answer with what it has learned. It is closed here, and the run has ended.

        Raises:
            ConversionError: the disk refuses.
            ReadError: the model cannot be read.
        """
        self.close()
        if self.trainer.step == self._begun_at and self.answers.complete:
            return  # nothing was learned since they were given
        self.trainer.free()
        del self._learner
        self._together = None
        mx.clear_cache()
        release_free_memory()  # what asks now may take it
        folder = self._request.folder
        if self._request.settings.method == "full":
            self.answers.after(str(folder), None)
        else:
            self.answers.after(self._request.model, folder)
        self.answers.save()
        self._save_page()

    def close(self) -> None:
        """Free the model."""
        if self._is_open:
            self._learner.close()
        self._is_open = False

    def _save_page(self) -> None:
        text = training_page(self._page_facts())
        write_file(self._request.folder / PAGE, [text.encode()], durable=False)

    def _end_epoch(self) -> EpochReport:
        """Return the epoch that the last step ends, and save it."""
        trainer = self.trainer
        epoch = self._epoch(trainer.epoch, trainer.epoch_loss)
        with signals_held():
            trainer.told(asdict(epoch))
        self.save()
        return epoch

    def _epoch(self, number: int, train: MeanLoss | None) -> EpochReport:
        valid, bits = None, None
        if self._valid:
            valid = self.trainer.loss_of(self._valid)
            if self._valid_bytes:
                asked = sum(one.asked for one in self._valid)
                bits = valid.loss * asked / math.log(2) / self._valid_bytes
        return EpochReport(
            epoch=number,
            train=train.loss if train else None,
            valid=valid.loss if valid else None,
            step=self.trainer.step,
            bits_per_byte=bits,
            figures=train.figures if train else {},
            valid_figures=valid.figures if valid else {},
        )

    def _page_facts(self) -> PageFacts:
        return page_facts(
            self._request,
            self.trainer,
            self._log.steps,
            learned=self._learned,
            data=self._data_table,
            memory=self.memory,
            answers=self.answers.shown,
            machines=self._machines,
        )


@contextmanager
def open_run(
    request: TrainRequest,
    ask: Ask | None = None,
    show: Show = _show_nothing,
    sending: SendProgress | None = None,
) -> Iterator[TrainingRun]:
    """Hold the folder that a run writes to, and yield the run; close it at the end.

    Args:
        request: what is asked for.
        ask, show, sending: as ``TrainingRun`` has them.

    Raises:
        ConfigError, FormatError, MemoryBudgetError, ModelNotFoundError, ReadError: something does
            not fit, before anything is learned.
        ConversionError: nothing can be written there.
        UnsupportedModelError: the model runs through mlx-lm alone, and cannot be trained here.
    """
    path = destination_path(request.folder)
    make_folder_of(path)
    if path.exists() and not path.is_dir():
        raise ConversionError(f"{request.folder} is a file", hint="name a folder")
    with (
        file_lock(path, "edgellm train"),
        closing(TrainingRun(request, ask, show, sending)) as run,
    ):
        yield run


def _notes(trainer: Trainer[Any], prepared: Preparation[Any], request: TrainRequest) -> list[str]:
    """Return what a person should know of a run's length."""
    notes = []
    step, steps = trainer.step, trainer.steps
    if prepared.state is not None:
        saved = prepared.state.facts
        before = replace(request.settings, epochs=saved["epochs"], steps=saved["steps"])
        begun_for = before.steps_of(len(prepared.items))
        if begun_for != steps:
            notes.append(
                f"the run was begun for {begun_for} steps, and now takes {steps}: from step "
                f"{step + 1} on rates are those of a run of {steps}"
            )
    if prepared.is_fused and request.settings.method == "lora":
        notes.append(
            "this model's files hold several of a layer's matrices in one, which PEFT and mlx-lm "
            "know under one name: the adapter is for edgellm alone (of most such models edgellm "
            "convert makes one whose adapters are for all)"
        )
    if step < steps and not trainer.learns:
        said = "nothing will be learned: all steps that are left have the rate 0"
        if request.settings.rates.rate:
            said += ", as the first step of a warm-up has; give --warmup 0, or more --steps"
        notes.append(said)
    return notes
