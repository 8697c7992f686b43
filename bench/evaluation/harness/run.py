"""Run tasks of lm-evaluation-harness on several models, one process each, as records of ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.bench.evaluation.harness.library import require_library
from edgellm.bench.evaluation.harness.tasks import tasks_of
from edgellm.bench.machine.environment import environment
from edgellm.bench.metrics.table import METRICS
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.device import machine
from edgellm.errors import BackendError, EdgeLLMError
from edgellm.hub.resolve import locate
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint
from edgellm.settings import LoadSettings

HARNESS_SEED = 1234
"""The harness' own choice of examples."""

WORKER = (sys.executable, "-m", "edgellm.bench.evaluation.harness.worker")

SENT = ("shots", "shot_seed", "limit", "chat", "seed", "like_harness", "run_code", "download")
"""Settings that a worker gets as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessSettings:
    """How tasks of the harness are asked.

    Attributes:
        tasks: their names, or those of categories.
        folder: a folder with tasks as YAML files.
        shots: examples in front of a question; None: as the task says.
        shot_seed: which examples; the default is the harness' own.
        limit: questions of a task; None: all.
        chat: whether questions go through the chat template.
        seed: of tasks that sample.
        like_harness: compute perplexities as the harness does for transformers, which scores the
            token that begins a text, too.
        run_code: whether tasks may run code that the model has written.
        download: whether data sets may be fetched; else they come from the disk alone.
        timeout: seconds in which a worker must send a message.
        load: how models are loaded.
    """

    tasks: Sequence[str]
    folder: Path | None = None
    shots: int | None = None
    shot_seed: int = HARNESS_SEED
    limit: int | None = None
    chat: bool = False
    seed: int = 0
    like_harness: bool = False
    run_code: bool = False
    download: bool = False
    timeout: float = 3600.0
    load: Mapping[str, Any] = field(default_factory=dict)


def run_harness(
    models: Sequence[str],
    settings: HarnessSettings,
    *,
    progress: StatusCallback = lambda _: None,
) -> Generator[EvaluationRecord]:
    """Yield a record for each model and task, as it is done.

    What fails becomes a record, too, and the others are run all the same.

    Raises:
        BackendError: the harness is not installed.
    """
    require_library()
    LoadSettings(**settings.load)  # checks it
    names = tasks_of(settings.tasks)
    total = len(models) * len(names)
    for number, model in enumerate(models):

        def report(doing: str, done: int = number, title: str = model) -> None:
            progress(Status(done * len(names) + 1, total, title, doing))

        yield from _run_model(model, names, settings, report)


def _run_model(
    model: str, names: Sequence[str], settings: HarnessSettings, report: Callable[[str], None]
) -> Generator[EvaluationRecord]:
    """Yield a record for each task."""
    common: dict[str, Any] = {
        "model": model,
        "backend": OWN,
        "device": machine.chip_name(),
        "test": "evaluation",
        "environment": environment(),
        "threads": settings.load.get("threads"),
        "memory_bytes": settings.load.get("memory"),
        "kv_bits": settings.load.get("kv_bits"),
        "shot_seed": settings.shot_seed,
        "chat": settings.chat,
        "seed": settings.seed,
    }
    waiting = list(names)
    try:
        checkpoint = read_any_checkpoint(locate(model))
        common |= {"bits": checkpoint.usual_bits, "model_bytes": checkpoint.nbytes}
        order = {
            "model": str(checkpoint.folder.path),
            "load": dict(settings.load),
            "tasks": list(names),
            "folder": settings.folder and str(settings.folder),
            **{name: getattr(settings, name) for name in SENT},
        }
        with WorkerProcess(
            timeout=settings.timeout, command=WORKER, threads=settings.load.get("threads")
        ) as worker:
            worker.send(order)
            report("loading")
            while not (message := worker.receive()).get("done"):
                if "load_seconds" in message:
                    common["load_seconds"] = message["load_seconds"]
                elif "doing" in message:
                    report(message["doing"])
                elif "failure" in message:
                    error = BackendError(message["failure"]["error"])
                    error.hint = message["failure"]["hint"]
                    yield _failed(common, message["task"], error)
                    waiting.remove(message["task"])
                else:
                    yield _record(common, message)
    except EdgeLLMError as error:
        for name in waiting:
            yield _failed(common, name, error)


def _failed(common: Mapping[str, Any], task: str, error: EdgeLLMError) -> EvaluationRecord:
    return EvaluationRecord(**common, task=task, error=error_sentence(error))


def _record(common: Mapping[str, Any], message: Mapping[str, Any]) -> EvaluationRecord:
    """Return the record of a task's message."""
    fields = {name: value for name, value in message.items() if name not in {"kind", "seconds"}}
    columns = message["columns"]
    fields["metrics"] = {
        name: metric.of(columns) for name, metric in METRICS.items() if metric.is_defined(columns)
    }
    return EvaluationRecord(
        **common, **fields, task_kind=message["kind"], seconds=(message["seconds"],)
    )
