"""Ask several models the same questions, on one, two, four and eight threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from edgellm.bench.machine.environment import environment
from edgellm.bench.queries.questions import QUESTIONS, QuerySettings
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.kinds import QueryRecord
from edgellm.bench.worker.process import WorkerEndedError, WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.device import machine as device
from edgellm.errors import BackendError, EdgeLLMError
from edgellm.hub.resolve import locate

WORKER = (sys.executable, "-m", "edgellm.bench.queries.worker")


def measure_queries(
    models: Sequence[str],
    questions: Sequence[str] = QUESTIONS,
    settings: QuerySettings | None = None,
    *,
    progress: StatusCallback = lambda _: None,
) -> Generator[QueryRecord]:
    """Yield a record for each model, number of threads and question, as it is answered.

    A failure becomes a record too, and the others are asked all the same.
    """
    settings = settings or QuerySettings()
    common: dict[str, Any] = {
        "backend": OWN,
        "device": device.chip_name(),
        "test": "query",
        "environment": environment(),
    }
    total = len(models) * len(settings.threads) * len(questions)
    done = 0
    for model in models:
        common["model"] = model
        try:
            checkpoint = read_checkpoint(locate(model))
        except EdgeLLMError as error:
            done += len(settings.threads) * len(questions)
            yield QueryRecord(**common, error=error_sentence(error))
            continue
        model_fields = {
            "bits": checkpoint.usual_bits,
            "memory_bytes": settings.memory,
            "model_bytes": checkpoint.nbytes,
        }
        for threads in settings.threads:
            report = _reporter(progress, Status(done, total, f"{model}, {threads} threads", ""))
            fields = common | model_fields | {"threads": threads}
            for number, answer in _ask_all(checkpoint, questions, settings, threads, report):
                question = questions[number - 1]
                yield QueryRecord(**fields, number=number, question=question, **answer)
            done += len(questions)


def _reporter(progress: StatusCallback, before: Status) -> Callable[[int, str], None]:
    """Return what reports the number of a question, counted from ``before``, and what is done."""

    def report(number: int, doing: str) -> None:
        progress(replace(before, number=before.number + number, doing=doing))

    return report


def _ask_all(
    checkpoint: Checkpoint,
    questions: Sequence[str],
    settings: QuerySettings,
    threads: int,
    report: Callable[[int, str], None],
) -> Generator[tuple[int, dict[str, Any]]]:
    """Yield each question's number, and the fields that a record has of its answer."""
    sampling = {
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }
    order = {
        "model": str(checkpoint.folder.path),
        "load": {"memory": settings.memory, "threads": threads},
        "sampling": sampling,
    }
    worker = WorkerProcess(timeout=settings.timeout, command=WORKER)
    try:
        report(1, "loading")
        worker.send(order)
        fatal = _load_error(worker)
        for number, question in enumerate(questions, 1):
            report(number, question)
            answer: dict[str, Any] = {"error": fatal}
            if fatal is None:
                try:
                    answer = _ask(worker, question, settings.repetitions)
                except BackendError as error:
                    answer = {"error": error_sentence(error)}
                    if isinstance(error, WorkerEndedError):
                        fatal = answer["error"]  # nobody is left to be asked
            yield number, answer
    finally:
        worker.kill()


def _load_error(worker: WorkerProcess) -> str | None:
    """Wait until the model is loaded, and return why it is not."""
    try:
        worker.receive()
    except BackendError as error:
        return error_sentence(error)
    return None


def _ask(worker: WorkerProcess, question: str, repetitions: int) -> dict[str, Any]:
    """Ask several times; return the last answer with the seconds of all. Raises BackendError."""
    answers = []
    for repetition in range(repetitions):
        worker.send({"question": question, "repetition": repetition})
        answers.append(worker.receive())
    last = answers[-1]
    return {
        "tokens": last["completion_tokens"],
        "seconds": tuple(answer["seconds"] for answer in answers),
        "first_token_seconds": tuple(answer["first_token_seconds"] for answer in answers),
        "answer": last["answer"],
        "finish_reason": last["finish_reason"],
        "prompt_tokens": last["prompt_tokens"],
        "peak_memory_bytes": last["peak_memory_bytes"],
    }
