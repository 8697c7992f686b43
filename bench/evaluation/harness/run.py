"""Run tasks of lm-evaluation-harness on several models, one process each."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.harness.library import require_library
from edgellm.bench.evaluation.harness.tasks import tasks_of
from edgellm.bench.evaluation.runs.run import checkpoint_fields, digest_of, load_fields
from edgellm.bench.machine.environment import environment
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.worker.process import WorkerEndedError, WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.device import machine
from edgellm.errors import EdgeLLMError
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint

WORKER = (sys.executable, "-m", "edgellm.bench.evaluation.harness.worker")

HARNESS_SEED = 1234
"""By it the harness chooses examples, if it is told no other; further choices count on from it."""

SENT = ("limit", "chat", "seed", "like_harness", "run_code", "download")
"""Settings that a worker gets as they are."""


LEFT_OUT = {"macro_f1"}
"""Metrics of labels: an option's number means nothing from question to question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessSettings:
    """How tasks of the harness are asked.

    Attributes:
        tasks: their names, or those of categories.
        folder: a folder with tasks as YAML files.
        shots: numbers of examples before a question; None: as the task says.
        shot_seeds: choices of examples with each of those numbers.
        limit: the most questions of a task; None: all.
        chat: whether questions go through the chat template.
        seed: of tasks that sample.
        like_harness: compute perplexities as the harness does for transformers, which scores the
            token that begins a text, too.
        run_code: whether tasks may run code that the model has written.
        download: whether data sets may be fetched; else they come from the disk alone.
        timeout: seconds in which a worker must send a message.
        loads: fields of ``LoadSettings``; each of them in turn.
    """

    tasks: Sequence[str]
    folder: Path | None = None
    shots: Sequence[int | None] = (None,)
    shot_seeds: int = 1
    limit: int | None = None
    chat: bool = False
    seed: int = 0
    like_harness: bool = False
    run_code: bool = False
    download: bool = False
    timeout: float = 3600.0
    loads: Sequence[Mapping[str, Any]] = ({},)


def run_harness(
    models: Sequence[str],
    settings: HarnessSettings,
    *,
    progress: StatusCallback = lambda _: None,
) -> Generator[EvaluationRecord]:
    """Yield a record for each model, way to load it, task and examples, as it is done.

    What fails becomes a record, too, and the others are run all the same.

    Raises:
        BackendError: the harness is not installed.
    """
    require_library()
    evaluation = _Evaluation(settings, len(models), progress)
    for model in models:
        for load in settings.loads:
            yield from evaluation.records(model, load)


@dataclass(frozen=True, slots=True)
class _Ask:
    """A task, and the examples before its questions.

    Attributes:
        task: its name.
        shots: how many examples; None: as the task says.
        shot_seed: which.
    """

    task: str
    shots: int | None
    shot_seed: int


class _Evaluation:
    def __init__(self, settings: HarnessSettings, models: int, progress: StatusCallback) -> None:
        self._settings, self._progress = settings, progress
        seeds = range(HARNESS_SEED, HARNESS_SEED + settings.shot_seeds)
        self._asks = [
            _Ask(task, shots, seed)
            for task, shots in product(tasks_of(settings.tasks), settings.shots)
            for seed in (seeds if shots != 0 else seeds[:1])
        ]
        self._total = len(self._asks) * len(settings.loads) * models
        self._done = 0
        self._common: dict[str, Any] = {
            "backend": OWN,
            "test": "eval",
            "device": machine.chip_name(),
            "environment": environment(),
            "chat": settings.chat,
            "seed": settings.seed,
        }

    def records(self, model: str, load: Mapping[str, Any]) -> Generator[EvaluationRecord]:
        """Yield the records of a model in a process of its own."""
        fields = load_fields(model, load)
        waiting = list(self._asks)
        try:
            checkpoint = read_any_checkpoint(locate(model))
            fields |= checkpoint_fields(checkpoint)
            with ExitStack() as closing:
                worker = closing.enter_context(self._worker(load))
                self._tell(waiting[0], fields["model"], "loading")
                worker.send(self._order(str(checkpoint.folder.path), load))
                fields |= worker.receive()
                while waiting:
                    yield from self._ask(waiting[0], worker, fields)
                    del waiting[0]
                    self._done += 1
        except EdgeLLMError as error:
            for ask in waiting:
                self._done += 1
                yield self._failed(ask, fields, error)

    def _worker(self, load: Mapping[str, Any]) -> WorkerProcess:
        return WorkerProcess(
            timeout=self._settings.timeout, command=WORKER, threads=load.get("threads")
        )

    def _order(self, path: str, load: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a worker must know of all that it is asked."""
        settings = self._settings
        return {
            "model": path,
            "load": dict(load),
            "tasks": tasks_of(settings.tasks),
            "folder": settings.folder and str(settings.folder),
            **{name: getattr(settings, name) for name in SENT},
        }

    def _ask(
        self, ask: _Ask, worker: WorkerProcess, fields: Mapping[str, Any]
    ) -> Generator[EvaluationRecord]:
        """Yield what comes of a task: a record, or one for each task of a group."""
        self._tell(ask, fields["model"], "reading its data")
        worker.send({"task": ask.task, "shots": ask.shots, "shot_seed": ask.shot_seed})
        try:
            while not (message := worker.receive()).get("done"):
                if "doing" in message:
                    self._tell(ask, fields["model"], message["doing"])
                else:
                    yield self._record(ask, fields, message)
        except WorkerEndedError:
            raise
        except EdgeLLMError as error:
            yield self._failed(ask, fields, error)

    def _record(
        self, ask: _Ask, fields: Mapping[str, Any], message: Mapping[str, Any]
    ) -> EvaluationRecord:
        columns = message["columns"]
        metrics = {
            name: metric.of(columns)
            for name, metric in METRICS.items()
            if name not in LEFT_OUT and metric.is_defined(columns)
        }
        shots, seed = message["shots"], ask.shot_seed
        digest = digest_of(message["task"], shots, seed, self._settings.chat)
        found = {**message, "metrics": metrics, "prompt_hash": digest, "shot_seed": seed}
        return EvaluationRecord(**self._common | dict(fields) | found)

    def _failed(
        self, ask: _Ask, fields: Mapping[str, Any], error: EdgeLLMError
    ) -> EvaluationRecord:
        found = {"task": ask.task, "shots": ask.shots or 0, "shot_seed": ask.shot_seed}
        return EvaluationRecord(**self._common | dict(fields) | found, error=error_sentence(error))

    def _tell(self, ask: _Ask, model: str, doing: str) -> None:
        self._progress(Status(self._done + 1, self._total, f"{model}, {ask.task}", doing))
