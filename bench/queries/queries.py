"""The founding experiment: the same questions to several models, on one, two, four and eight threads."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from edgellm.bench.machine.environment import environment
from edgellm.bench.queries.questions import QUESTIONS, QuerySettings
from edgellm.bench.records.record import Record
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.status import Status
from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.checkpoint.quantization import quantization_of
from edgellm.device import machine as device
from edgellm.errors import BackendError, EdgeLLMError
from edgellm.hub.resolve import locate


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRecord(Record):
    """One question to one model; ``seconds`` are from the question to the last token of its answer.

    Attributes:
        number: of the question, from 1.
        question: what was asked.
        answer: what was said.
        finish_reason: ``stop``, or ``length`` where ``--max-tokens`` cut it off.
        prompt_tokens: of the question, the template's own among them.
        first_token_seconds: of each repetition.
        model_bytes: of the model's weights.
        score: from 1 to 10, once somebody has rated the answer.
        scored_by: ``person``, or the judge's name.
    """

    number: int = 0
    question: str = ""
    answer: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    first_token_seconds: tuple[float, ...] = ()
    model_bytes: int | None = None
    score: float | None = None
    scored_by: str | None = None

    KIND: ClassVar[str] = "queries"
    DERIVED: ClassVar[tuple[str, ...]] = (*Record.DERIVED, "median_seconds", "seconds_per_token")

    @property
    def seconds_per_token(self) -> float | None:
        """From the question to the end of the answer, shared among its tokens; of the median repetition."""
        seconds = self.median_seconds
        return seconds / self.tokens if seconds and self.tokens else None


def measure_queries(
    models: Sequence[str],
    questions: Sequence[str] = QUESTIONS,
    settings: QuerySettings | None = None,
    *,
    progress: Callable[[Status], None] = lambda _: None,
) -> Generator[QueryRecord]:
    """Yield a record for each model, number of threads and question, as it is answered; a failure becomes one too."""
    settings = settings or QuerySettings()
    where = environment()
    total = len(models) * len(settings.threads) * len(questions)
    for place, model in enumerate(models):
        try:
            checkpoint = read_checkpoint(locate(model))
        except EdgeLLMError as error:
            said = f"{error.message} (hint: {error.hint})" if error.hint else error.message
            yield QueryRecord(
                model=model,
                backend="mlx",
                device=device.chip_name(),
                test="query",
                environment=where,
                error=said,
            )
            continue
        for count, threads in enumerate(settings.threads):
            done = (place * len(settings.threads) + count) * len(questions)
            common: dict[str, Any] = {
                "model": model,
                "backend": "mlx",
                "device": device.chip_name(),
                "test": "query",
                "environment": where,
                "threads": threads,
                "bits": _bits(checkpoint),
                "memory_bytes": settings.memory,
                "model_bytes": checkpoint.nbytes,
            }
            say = partial(_say, progress, Status(done, total, f"{model}, {threads} threads", ""))
            yield from _asked(checkpoint, questions, settings, common, say)


def _asked(
    checkpoint: Checkpoint,
    questions: Sequence[str],
    settings: QuerySettings,
    common: dict[str, Any],
    progress: Callable[[int, str], None],
) -> Generator[QueryRecord]:
    load = {"memory": settings.memory, "threads": common["threads"]}
    sampling = {
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }
    command = [sys.executable, "-m", "edgellm.bench.queries.worker", str(checkpoint.folder.path)]
    command.append(json.dumps({"load": load, "sampling": sampling}))
    process = WorkerProcess(timeout=settings.timeout, command=command)
    try:
        progress(1, "loading")
        unloaded = _heard(process).get("error")
        for number, question in enumerate(questions, 1):
            progress(number, question)
            said = (
                [{"error": unloaded}]
                if unloaded
                else _answers(process, question, settings.repetitions)
            )
            yield QueryRecord(**common, number=number, question=question, **_summary(said))
    finally:
        process.kill()


def _summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    failure = next((said["error"] for said in found if "error" in said), None)
    if failure is not None:
        return {"error": failure}
    last = found[-1]
    return {
        "tokens": last["completion_tokens"],
        "seconds": tuple(said["seconds"] for said in found),
        "first_token_seconds": tuple(said["first_token_seconds"] for said in found),
        "answer": last["answer"],
        "finish_reason": last["finish_reason"],
        "prompt_tokens": last["prompt_tokens"],
        "peak_memory_bytes": last["peak_memory_bytes"],
    }


def _say(progress: Callable[[Status], None], before: Status, number: int, doing: str) -> None:
    progress(replace(before, number=before.number + number, doing=doing))


def _answers(process: WorkerProcess, question: str, repetitions: int) -> list[dict[str, Any]]:
    said = []
    for repetition in range(repetitions):
        process.send({"question": question, "repetition": repetition})
        said.append(_heard(process))
    return said


def _heard(process: WorkerProcess) -> dict[str, Any]:
    """What it says next; that it is gone or silent, where it says no more."""
    try:
        return process.receive()
    except BackendError as error:
        return {"error": error.message}


def _bits(checkpoint: Checkpoint) -> int | None:
    usual = quantization_of(checkpoint.folder.config, "")
    return usual.bits if usual else 16
