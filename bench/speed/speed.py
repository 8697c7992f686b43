"""Runs a workload: a worker for each session, a record for each test, whatever becomes of the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgellm.bench.backends.registry import ENDPOINT, Rates, backend_named
from edgellm.bench.machine.environment import environment
from edgellm.bench.machine.roofline import processor_rates
from edgellm.bench.records.record import SpeedRecord
from edgellm.bench.speed.variants import Variant, variant_of
from edgellm.bench.speed.workload import Session, Test, Workload
from edgellm.bench.worker.process import WORKER, WorkerProcess
from edgellm.device import machine as device
from edgellm.errors import BackendError, EdgeLLMError

LOAD = "load"
"""The test of a record that says why a session could not begin."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is being done: which of how many tests, and what of it."""

    number: int
    total: int
    title: str
    doing: str


Progress = Callable[[Status], None]


@dataclass(slots=True)
class _Samples:
    """What a worker has said of a test so far."""

    seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    slept: int = 0
    done: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


class Speed:
    """One run of the bench.

    Args:
        workload: what is measured.
        progress: called before each thing that takes a while.
        worker: the command that starts a worker.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        progress: Progress = lambda _: None,
        worker: tuple[str, ...] = WORKER,
    ) -> None:
        self._workload, self._progress, self._worker = workload, progress, worker
        self._sessions, self._tests = workload.sessions(), workload.tests()
        self._rates: dict[int, Rates] = {}
        self._number = 0

    @property
    def total(self) -> int:
        """Tests in all."""
        return len(self._sessions) * len(self._tests)

    def records(self) -> Generator[SpeedRecord]:
        """Yield each test's record when it is finished; one that fails says why, and the rest goes on."""
        for place, session in enumerate(self._sessions):
            self._number = place * len(self._tests)
            yield from self._session(session)

    def _session(self, session: Session) -> Generator[SpeedRecord]:
        waiting = list(self._tests)
        while waiting:
            worker = None
            try:
                variant = self._variant(session)
                rates = self._processor_rates(session)
                worker = self._start(session)
                loaded = self._load(worker, session, variant)
                while waiting:
                    test = waiting.pop(0)
                    self._number += 1
                    samples = self._measure(worker, session, test, variant)
                    yield _record(
                        session, test, variant, loaded=loaded, samples=samples, rates=rates
                    )
                    if samples.error is not None and not samples.done:
                        break  # it is gone: what is left gets a new one
            except EdgeLLMError as error:
                yield _failed(session, error)
                return
            finally:
                if worker is not None:
                    worker.close()

    def _variant(self, session: Session) -> Variant | None:
        if session.backend == ENDPOINT:
            return None
        self._say(session, "looking at the model")
        return variant_of(session.model, session.bits, session.backend)

    def _processor_rates(self, session: Session) -> Rates | None:
        """What the processor could do with the session's threads: the best that this run has seen, since others use it too."""
        if session.backend == ENDPOINT:
            return None
        threads = session.settings.threads or device.core_count()
        self._say(session, "measuring this machine's memory")
        with suppress(BackendError):
            found = processor_rates(threads)
            best = self._rates.get(threads, found)
            flops = max(found.flops_per_second or 0.0, best.flops_per_second or 0.0)
            self._rates[threads] = Rates(
                max(found.bytes_per_second, best.bytes_per_second), flops or None
            )
        return self._rates.get(threads)

    def _start(self, session: Session) -> WorkerProcess:
        threads = session.settings.threads
        variables = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        return WorkerProcess(
            timeout=self._workload.timeout,
            command=self._worker,
            variables=variables,
            way_round=backend_named(session.backend).way_round,
        )

    def _load(
        self, worker: WorkerProcess, session: Session, variant: Variant | None
    ) -> Mapping[str, Any]:
        self._say(session, "loading")
        order = {
            "backend": session.backend,
            "model": str(variant.path) if variant else session.model,
            "settings": asdict(session.settings),
            "endpoint": self._workload.endpoint,
            "key_variable": self._workload.key_variable,
        }
        worker.tell(order)
        found = worker.hear()
        if "error" in found:
            raise BackendError(found["error"], hint=found["hint"])
        return found

    def _measure(
        self, worker: WorkerProcess, session: Session, test: Test, variant: Variant | None
    ) -> _Samples:
        workload, samples = self._workload, _Samples()
        if variant and variant.context and test.depth + test.tokens > variant.context:
            fact = f"{test.name} takes {test.depth + test.tokens} tokens, and the model's context is {variant.context}"
            samples.error = _sentence(fact, "give a smaller --depth, or fewer tokens")
            samples.done = {"error": samples.error}
            return samples
        worker.tell(
            {
                "test": asdict(test),
                "vocabulary": variant.vocabulary if variant else None,
                "repetitions": workload.repetitions,
                "max_seconds": workload.max_seconds,
            }
        )
        self._say(session, f"{test.name}{_batch(test)}, warming up")
        try:
            while not samples.done:
                found = worker.hear()
                if "error" in found:
                    samples.error, samples.done = _sentence(found["error"], found["hint"]), found
                elif "done" in found:
                    samples.steps, samples.done = found["steps"], found
                elif "seconds" in found:
                    _add(samples, found)
                if not samples.done:
                    count = len(samples.seconds)
                    of = (
                        f"repetition {count + 1} of {workload.repetitions}"
                        if count < workload.repetitions
                        else "single steps"
                    )
                    self._say(session, f"{test.name}{_batch(test)}, {of}")
        except EdgeLLMError as error:
            samples.error = _sentence(error.message, error.hint)
        return samples

    def _say(self, session: Session, doing: str) -> None:
        self._progress(Status(min(self._number, self.total), self.total, session.title, doing))


def _add(samples: _Samples, found: Mapping[str, Any]) -> None:
    if found["slept"]:
        samples.slept += 1
        return
    samples.seconds.append(found["seconds"])
    if found["joules"] is not None:
        samples.joules.append(found["joules"])
    if found.get("first") is not None:
        samples.first.append(found["first"])


def _record(
    session: Session,
    test: Test,
    variant: Variant | None,
    *,
    loaded: Mapping[str, Any],
    samples: _Samples,
    rates: Rates | None,
) -> SpeedRecord:
    if loaded["read_rate"] is not None:
        rates = Rates(loaded["read_rate"], loaded["multiply_rate"])
    prompt = test.kind == "pp"
    flops = variant.flops(prompt=prompt, tokens=test.tokens, batch=test.batch) if variant else None
    weights = loaded["weight_bytes_per_token"]
    tokens = samples.done.get("tokens", test.tokens)
    return SpeedRecord(
        **(_common(session, variant) | ({"model": loaded["model"]} if loaded.get("model") else {})),
        device=loaded["device"],
        test=test.name,
        tokens=tokens,
        depth=test.depth,
        batch=test.batch,
        seconds=tuple(samples.seconds),
        step_seconds=tuple(samples.steps),
        first_token_seconds=tuple(samples.first),
        slept=samples.slept,
        energy_joules=tuple(samples.joules),
        energy_source=samples.done.get("energy_source") if samples.joules else None,
        arithmetic=loaded["arithmetic"],
        load_seconds=loaded["load_seconds"],
        weight_bytes_per_token=weights,
        peak_memory_bytes=samples.done.get("peak_memory_bytes"),
        read_gbps=rates.bytes_per_second / 1e9 if rates else None,
        compute_gflops=rates.flops_per_second / 1e9 if rates and rates.flops_per_second else None,
        flops=flops,
        floor_seconds=floor_seconds(weights, flops, rates, passes=1 if prompt else test.tokens),
        error=samples.error,
    )


def _failed(session: Session, error: EdgeLLMError) -> SpeedRecord:
    """The record of a session that could not begin."""
    return SpeedRecord(
        **_common(session, None),
        device=device.chip_name(),
        test=LOAD,
        error=_sentence(error.message, error.hint),
    )


def _common(session: Session, variant: Variant | None) -> dict[str, Any]:
    settings = session.settings
    return {
        "model": session.model,
        "backend": session.backend,
        "environment": environment() | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        "threads": settings.threads,
        "bits": (variant.bits if variant else None) or session.bits,
        "memory_bytes": settings.memory,
        "dtype": settings.dtype,
        "model_bytes": variant.nbytes if variant else None,
    }


def floor_seconds(
    weights: int | None, flops: float | None, rates: Rates | None, *, passes: int
) -> float | None:
    """The least seconds in which this machine could read the weights so often, and multiply."""
    if rates is None or weights is None:
        return None
    reading = passes * weights / rates.bytes_per_second
    return (
        max(reading, flops / rates.flops_per_second)
        if flops and rates.flops_per_second
        else reading
    )


def settled(records: Sequence[SpeedRecord]) -> list[SpeedRecord]:
    """The records with the best rates of the whole run: who was measured while others were busy looks no better."""
    best: dict[tuple[str, int | None], Rates] = {}
    for record in records:
        if record.read_gbps is not None:
            before = best.get((record.device, record.threads), Rates(0.0, 0.0))
            flops = max(before.flops_per_second or 0.0, 1e9 * (record.compute_gflops or 0.0))
            best[record.device, record.threads] = Rates(
                max(before.bytes_per_second, 1e9 * record.read_gbps), flops
            )
    return [_with_rates(record, best.get((record.device, record.threads))) for record in records]


def _with_rates(record: SpeedRecord, rates: Rates | None) -> SpeedRecord:
    if record.read_gbps is None or rates is None:
        return record
    passes = 1 if record.is_prompt else record.tokens
    return replace(
        record,
        read_gbps=rates.bytes_per_second / 1e9,
        compute_gflops=rates.flops_per_second / 1e9 if rates.flops_per_second else None,
        floor_seconds=floor_seconds(
            record.weight_bytes_per_token, record.flops, rates, passes=passes
        ),
    )


def _batch(test: Test) -> str:
    return f", {test.batch} sequences" if test.batch > 1 else ""


def _sentence(message: str, hint: str | None) -> str:
    return f"{message} (hint: {hint})" if hint else message
