"""Techniques in turns, each in a process of its own, and a record of each."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.training import TrainingRecord
from edgellm.bench.speed.variants import make_model, prepare_variant, variants_folder
from edgellm.bench.training.task import Task, longest, render_sequences
from edgellm.bench.training.task_settings import TaskSettings
from edgellm.bench.training.technique import FULL, Technique
from edgellm.bench.training.trainer import not_installed
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import DoingCallback, Status, StatusCallback
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.device import machine
from edgellm.errors import ConfigError, EdgeLLMError

ANY = "any technique"
"""The test of a record that says why a library was not measured."""

WORKER = (sys.executable, "-m", "edgellm.bench.training.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMeasurement:
    """How techniques are measured.

    Attributes:
        model: a folder, a Hub id, a bundled name or a shape's.
        techniques: what is measured.
        task: what each of them learns with; the first step of a turn is not timed where there are
            more.
        data: a file of records; None: our own text.
        turns: of each technique.
        timeout: seconds in which a worker must send a message.

    Raises:
        ConfigError: a step cannot be cut into the parts of a technique.
    """

    model: str
    techniques: tuple[Technique, ...]
    task: TaskSettings = field(default_factory=TaskSettings)
    data: Path | None = None
    turns: int = 2
    timeout: float = 600.0

    def __post_init__(self) -> None:
        """Check that all parts of a step have as many sequences."""
        for technique in self.techniques:
            if self.task.batch % technique.accumulation:
                raise ConfigError(
                    f"a step of {self.task.batch} sequences has no {technique.accumulation} equal "
                    "parts",
                    hint=f"give --batch a multiple of {technique.accumulation}, or another "
                    "--accumulation",
                )


@dataclass(slots=True)
class _Outcome:
    """The figures of a technique's turns so far.

    Attributes:
        opened: the worker's first message.
        ends: its last one of each turn.
        losses: of the newest turn's steps.
        seconds: of all timed steps.
        cpu_seconds: processor time of each of them.
        step_tokens: tokens of each of them.
        error: why there is no more, in a sentence.
    """

    opened: Mapping[str, Any] = field(default_factory=dict)
    ends: list[Mapping[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    step_tokens: list[int] = field(default_factory=list)
    error: str | None = None


def qlora_bits(model: str) -> int:
    """Return the bits of a model for QLoRA: as it is stored, or 4 of one in 16.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError: it cannot be used.
    """
    stored = _opened(model).usual_bits
    if stored is None or stored >= 16:
        return 4
    return stored


def measure_training(
    settings: TrainingMeasurement, *, progress: StatusCallback = lambda _: None
) -> Generator[TrainingRecord]:
    """Yield a record for each technique, in its last turn.

    They have their turns one after the other, the first of a round last in the next, so that a
    machine that slows down slows them all. One that fails says why in its record, and the others
    go on; a library that is not installed has one.

    Raises:
        ModelNotFoundError, FormatError, UnsupportedModelError: the model cannot be used at all.
        ConfigError, ReadError: the data cannot.
    """
    lesson = _Lesson(settings)
    missing = {one.backend: not_installed(one.backend) for one in settings.techniques}
    for backend, error in missing.items():
        if error is not None:
            yield lesson.failure(backend, error_sentence(error))
    techniques = [one for one in settings.techniques if missing[one.backend] is None]
    outcomes = {technique: _Outcome() for technique in techniques}
    total = settings.turns * len(outcomes)
    done = 0
    for turn in range(settings.turns):
        # the last turn in the order of the techniques, which is then that of the records
        for technique in techniques[:: -1 if (settings.turns - 1 - turn) % 2 else 1]:
            done += 1
            outcome = outcomes[technique]
            if outcome.error is None:
                title = f"{technique.backend}, {technique.title}"
                show = partial(_show, progress, number=done, total=total, title=title)
                try:
                    lesson.take_turn(technique, outcome, show)
                except EdgeLLMError as error:
                    outcome.error = error_sentence(error)
            if turn == settings.turns - 1:
                yield lesson.record(technique, outcome)


def _show(progress: StatusCallback, doing: str, *, number: int, total: int, title: str) -> None:
    progress(Status(number, total, title, doing))


class _Lesson:
    """The model and the sequences that all techniques have in common.

    Raises:
        EdgeLLMError: the model or the data cannot be used.
    """

    def __init__(self, settings: TrainingMeasurement) -> None:
        self._settings = settings
        self._checkpoint = _opened(settings.model)
        self._sequences = render_sequences(self._checkpoint, settings.data, settings.task)

    def take_turn(self, technique: Technique, outcome: _Outcome, show: DoingCallback) -> None:
        """Add what a turn shows to an outcome. Raises EdgeLLMError."""
        show("looking at the model")
        settings, steps = self._settings, self._settings.task.steps
        task = Task(
            folder=str(_folder_in(self._checkpoint, technique.bits)),
            technique=technique,
            sequences=self._sequences,
            settings=settings.task,
        )
        show("loading")
        seconds: list[float] = []
        cpu_seconds: list[float] = []
        with WorkerProcess(
            command=WORKER,
            timeout=settings.timeout,
            threads=settings.task.threads,
            crash_hint="take a smaller --batch or --tokens",
        ) as worker:
            worker.send(task.as_order())
            outcome.opened = worker.receive()
            outcome.losses = []
            show(f"step 1 of {steps}")
            while "done" not in (message := worker.receive()):
                outcome.losses.append(message["loss"])
                seconds.append(message["seconds"])
                cpu_seconds.append(message["cpu_seconds"])
                show(f"step {min(len(seconds) + 1, steps)} of {steps}")
        outcome.ends.append(message)
        # the first step compiles, and touches memory for the first time
        untimed = 1 if len(seconds) > 1 else 0
        outcome.seconds += seconds[untimed:]
        outcome.cpu_seconds += cpu_seconds[untimed:]
        outcome.step_tokens += [
            sum(len(one.tokens) for one in task.step(number))
            for number in range(untimed, len(seconds))
        ]

    def failure(self, backend: str, reason: str) -> TrainingRecord:
        """Return the record of a library that trains by no technique here."""
        return TrainingRecord(
            model=self._settings.model,
            backend=backend,
            device=machine.chip_name(),
            test=ANY,
            environment=environment(),
            error=reason,
        )

    def record(self, technique: Technique, outcome: _Outcome) -> TrainingRecord:
        """Return what the turns of a technique have shown."""
        task = self._settings.task
        record = TrainingRecord(
            model=self._settings.model,
            backend=technique.backend,
            device=outcome.opened.get("device", machine.chip_name()),
            test=technique.title,
            environment=environment(),
            tokens=longest(self._sequences),
            threads=task.threads,
            batch=task.batch,
            bits=technique.bits,
            memory_bytes=technique.memory,
            method=technique.method,
            checkpointing=technique.checkpointing,
            accumulation=technique.accumulation,
            dtype=technique.dtype,
            rank=None if technique.method == FULL else task.rank,
            steps=task.steps,
            layers=len(self._checkpoint.layers),
            error=outcome.error,
        )
        if outcome.error is not None:
            return record
        end = outcome.ends[-1]
        return replace(
            record,
            arithmetic=outcome.opened["arithmetic"],
            memory_bytes=end["memory"],
            checkpointing=end["checkpointing"],
            seconds=tuple(outcome.seconds),
            cpu_seconds=tuple(outcome.cpu_seconds),
            step_tokens=tuple(outcome.step_tokens),
            numbers=end["numbers"],
            weight_bytes=end["weights"],
            gradient_bytes=end["gradients"],
            optimizer_bytes=end["optimizer"],
            start_bytes=end["start"],
            training_peak_bytes=end["training_peak"],
            peak_memory_bytes=max(one["peak"] for one in outcome.ends),
            allocator_peak_bytes=end["allocator_peak"],
            pinned_layers=end["pinned"],
            losses=tuple(outcome.losses),
            loss_after=end["loss_after"],
        )


def _opened(model: str) -> Checkpoint:
    variant = prepare_variant(model, None, OWN)
    assert variant.path is not None, "edgellm opens folders"
    return read_checkpoint(variant.path)


def _folder_in(checkpoint: Checkpoint, bits: int) -> Path:
    """Return the folder of a model in other bits, made where it is not there.

    Raises:
        BackendError: it cannot be had in these bits.
    """
    folder = checkpoint.folder.path
    if bits == 16 != checkpoint.usual_bits:
        made = variants_folder() / f"{folder.name}-{fingerprint(checkpoint)[:8]}-16bit"
        return make_model(made, "convert", str(folder), str(made), "--bits", "16")
    variant = prepare_variant(str(folder), bits, OWN)
    assert variant.path is not None, "a folder stays a folder"
    return variant.path
