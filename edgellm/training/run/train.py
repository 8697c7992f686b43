"""A whole training run: data, memory, steps, saves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.checkpoint.folder import ADAPTER_CONFIG
from edgellm.device import machine
from edgellm.errors import ConfigError
from edgellm.files.file_lock import file_lock
from edgellm.files.refusals import write_error
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import budget_for
from edgellm.models.arithmetic import engine_for
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer
from edgellm.training.adapter_folder import AdapterFormat
from edgellm.training.data.records import read_records
from edgellm.training.data.rendering import Rendered, Template, render
from edgellm.training.learners.adapter import AdapterLearner
from edgellm.training.micro_batch import TrainingSequence
from edgellm.training.run.memory import TrainingMemory, plan_training
from edgellm.training.run.saved_state import FILE, read_state
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.trainer import StepReport, Trainer
from edgellm.training.trained_model import OpenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """A model, the data that it learns, and how.

    Attributes:
        model: name or path.
        data: the file of records.
        folder: that the adapter goes to.
        settings: of the run.
        load: which memory and arithmetic.
        valid: records that are not learned, whose loss is said after each epoch; None: none.
        template: that records are written in; None: the model's chat template, or Alpaca's.
        max_tokens: of a sequence.
        resume: go on with the run in ``folder``.
        form: of the adapter.
    """

    model: str
    data: Path
    folder: Path
    settings: TrainSettings
    load: LoadSettings
    valid: Path | None = None
    template: Template | None = None
    max_tokens: int = 1024
    resume: bool = False
    form: AdapterFormat = "peft"


@dataclass(frozen=True, slots=True)
class EpochReport:
    """An epoch.

    Attributes:
        epoch: its number, from 1; 0 before the first.
        train: mean loss of its steps; None before the first.
        valid: loss of the records that are not learned; None without any.
    """

    epoch: int
    train: float | None
    valid: float | None


class TrainingRun:
    """A run that is ready: data are read, memory is planned, and the model is open.

    Attributes:
        template: that the records are written in.
        data: the records as sequences.
        memory: what it takes.
        trainer: takes the steps.
    """

    def __init__(self, request: TrainRequest) -> None:
        self._request = request
        checkpoint = read_checkpoint(locate(request.model))
        tokenizer = Tokenizer.from_folder(
            checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size
        )
        self.template: Template = request.template or _template_of(tokenizer)
        template = self.template
        self.data: Rendered = _rendered(request.data, tokenizer, template, request.max_tokens)
        self._valid: list[TrainingSequence] = []
        if request.valid is not None:
            self._valid = _rendered(
                request.valid, tokenizer, template, request.max_tokens
            ).sequences
        sequences = [*self.data.sequences, *self._valid]
        lengths = sorted((len(one.tokens) for one in sequences), reverse=True)
        self.memory: TrainingMemory = plan_training(
            checkpoint,
            request.settings.lora,
            budget_for(request.load),
            step_tokens=sum(lengths[: request.settings.batch]),
            micro_tokens=request.settings.micro_tokens,
            longest=lengths[0],
            kernels=engine_for(request.load),
        )
        self._facts = _facts(request, fingerprint(checkpoint), self.data.sequences)
        state = None
        if request.resume:
            state = read_state(request.folder, self._facts, checkpoint.config.num_hidden_layers)
        elif (request.folder / FILE).exists():
            raise ConfigError(
                f"{request.folder} holds a training run already",
                hint="go on with it: --resume; or name another folder",
            )
        elif (request.folder / ADAPTER_CONFIG).exists():
            raise ConfigError(
                f"{request.folder} holds an adapter already", hint="name another folder"
            )
        lora = request.settings.lora
        self._learner = AdapterLearner(
            OpenModel(checkpoint, lora, self.memory.in_memory, request.load),
            checkpoint.config,
            lora,
            micro_tokens=self.memory.micro_tokens,
            seed=request.settings.seed,
            base=request.model,
            form=request.form,
        )
        self.trainer: Trainer[TrainingSequence] = Trainer(
            self._learner, self.data.sequences, request.settings, state
        )

    def run(self) -> Iterator[StepReport | EpochReport]:
        """Yield steps and epochs as they end; each save is whole before the next step.

        Raises:
            NotFiniteError: losses are not finite, twice in a row.
            ConversionError: the disk refuses.
            ReadError: a layer cannot be read.
        """
        trainer = self.trainer
        self.save()  # where the disk refuses, it does so now
        if trainer.step == 0 and self._valid:
            yield self._epoch(0, None)
        every = self._request.settings.save_every
        for report in trainer.run():
            yield report
            if report.ends_epoch or report.step == report.steps:
                epoch = self._epoch(report.epoch, trainer.end_epoch())
                trainer.history.append(asdict(epoch))
                self.save()
                yield epoch
            elif every and report.step % every == 0:
                self.save()

    def save(self) -> None:
        """Write the run and its adapter as they are. Raises ConversionError."""
        request = self._request
        try:
            request.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(request.folder, error) from error
        self.trainer.save(request.folder, self._facts)

    def close(self) -> None:
        """Free the model."""
        self._learner.close()

    def _epoch(self, number: int, train: float | None) -> EpochReport:
        valid = None
        if self._valid:
            valid = self.trainer.loss_of(self._valid)
        return EpochReport(number, train, valid)


@contextmanager
def open_run(request: TrainRequest) -> Iterator[TrainingRun]:
    """Hold the folder that a run writes to, and yield the run; close it at the end.

    Raises:
        ConfigError, FormatError, MemoryBudgetError, ModelNotFoundError, ReadError: something does
            not fit, before anything is learned.
        UnsupportedModelError: the model runs through mlx-lm alone, and cannot be trained here.
    """
    request.folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with file_lock(request.folder, "edgellm train"), closing(TrainingRun(request)) as run:
        yield run


def _rendered(path: Path, tokenizer: Tokenizer, template: Template, max_tokens: int) -> Rendered:
    return render(read_records(path), tokenizer, template=template, max_tokens=max_tokens)


def _template_of(tokenizer: Tokenizer) -> Template:
    if tokenizer.chat_template is None:
        return "alpaca"
    return "chat"


def _facts(
    request: TrainRequest, model: str, sequences: Sequence[TrainingSequence]
) -> Mapping[str, Any]:
    """Return what a run must have in common with one that goes on from it."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(repr((sequence.tokens, sequence.targets)).encode())
    settings = asdict(request.settings)
    # how a step is cut and how often it is saved change no number
    for name in ("micro_tokens", "save_every"):
        del settings[name]
    settings["lora"]["targets"] = list(request.settings.lora.targets)
    return {
        "model": model,
        "data": digest.hexdigest(),
        "activations": request.load.activations,
        "chip": machine.chip_name(),
        **settings,
    }
