"""A run of the bench: a worker for each session, and a record for each test."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgellm.bench.backends.registry import ENDPOINT, backend_named
from edgellm.bench.machine.environment import environment
from edgellm.bench.machine.rates import Rates
from edgellm.bench.machine.roofline import processor_rates
from edgellm.bench.records.record import SpeedRecord
from edgellm.bench.speed.floor import with_rates
from edgellm.bench.speed.variants import ModelVariant, prepare_variant
from edgellm.bench.speed.workload import Session, Test, Workload
from edgellm.bench.worker.process import WorkerEndedError, WorkerProcess
from edgellm.bench.worker.protocol import Message, error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.device import machine
from edgellm.errors import BackendError, EdgeLLMError

WORKER = (sys.executable, "-m", "edgellm.bench.speed.worker")

LOAD = "load"
"""The test of a record that says why a session could not begin."""

MEASURE_AGAIN_SECONDS = 60.0
"""The limits are measured again so long after the last time: the machine may be busier or less."""

UNKNOWN = ModelVariant()
"""The model of an endpoint, about which nothing is known."""


@dataclass(slots=True)
class _Samples:
    """The measurements of a test so far.

    Attributes:
        end: the worker's last message of the test; empty where it did not come to its end.
        error: why, in a sentence.
        worker_ended: whether the worker is gone.
    """

    seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)
    slept: int = 0
    end: Message = field(default_factory=dict)
    error: str | None = None
    worker_ended: bool = False

    def add(self, message: Message) -> None:
        """Add a repetition."""
        if message["slept"]:
            self.slept += 1
            return
        self.seconds.append(message["seconds"])
        if message["joules"] is not None:
            self.joules.append(message["joules"])
        if "first" in message:
            self.first_token_seconds.append(message["first"])


class Speed:
    """One run of the bench.

    Args:
        workload: what is measured.
        progress: called before each step that takes a while.
        worker: the command that starts a worker.
        measure_rates: measures the processor's limits with this many threads.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        progress: StatusCallback = lambda _: None,
        worker: Sequence[str] = WORKER,
        measure_rates: Callable[[int], Rates] = processor_rates,
    ) -> None:
        self._workload, self._progress, self._worker = workload, progress, worker
        self._measure_rates = measure_rates
        self._sessions, self._tests = workload.sessions(), workload.tests()
        self._rates: dict[int, Rates] = {}
        self._measure_again: dict[int, float] = {}
        self._number = 0

    @property
    def total(self) -> int:
        """Tests in all."""
        return len(self._sessions) * len(self._tests)

    def records(self) -> Generator[SpeedRecord]:
        """Yield each test's record when it is done; after one that failed the rest goes on."""
        for place, session in enumerate(self._sessions):
            self._number = place * len(self._tests)
            try:
                for record in self._session(session):
                    yield replace(record, not_measured=self._workload.not_measured)
            except EdgeLLMError as error:
                failed = _failed(session, error)
                yield replace(failed, not_measured=self._workload.not_measured)

    def _session(self, session: Session) -> Generator[SpeedRecord]:
        """Yield the records of a session. Raises EdgeLLMError where a worker cannot be had."""
        variant = self._variant(session)
        tests = list(self._tests)
        while tests:
            rates = self._processor_rates(session)
            with self._start(session) as worker:
                loaded = self._load(worker, session, variant)
                while tests:
                    test = tests.pop(0)
                    self._number += 1
                    samples = self._measure(worker, session, test, variant)
                    yield _record(
                        session, test, variant, loaded=loaded, samples=samples, rates=rates
                    )
                    if samples.worker_ended:
                        break  # what is left gets a new one

    def _variant(self, session: Session) -> ModelVariant:
        if session.backend == ENDPOINT:
            return UNKNOWN
        self._show(session, "looking at the model")
        return prepare_variant(session.model, session.bits, session.backend)

    def _processor_rates(self, session: Session) -> Rates | None:
        """Measure the processor's limits with the session's threads.

        Returns:
            The best that this run has seen, since others use the processor too; None of an
            endpoint and of several machines, and where nothing could be measured.
        """
        if session.backend == ENDPOINT or session.settings.machines is not None:
            return None
        threads = session.settings.threads or machine.core_count()
        if time.monotonic() < self._measure_again.get(threads, 0.0):
            return self._rates.get(threads)
        self._show(session, "measuring this machine's memory")
        with suppress(BackendError):
            self._rates[threads] = self._measure_rates(threads).best(self._rates.get(threads))
        self._measure_again[threads] = time.monotonic() + MEASURE_AGAIN_SECONDS
        return self._rates.get(threads)

    def _start(self, session: Session) -> WorkerProcess:
        return WorkerProcess(
            command=self._worker,
            timeout=self._workload.timeout,
            threads=session.settings.threads,
            crash_hint=backend_named(session.backend).crash_hint,
        )

    def _load(
        self, worker: WorkerProcess, session: Session, variant: ModelVariant
    ) -> dict[str, Any]:
        self._show(session, "loading")
        worker.send(
            {
                "backend": session.backend,
                "model": str(variant.path or session.model),
                "settings": asdict(session.settings),
                "endpoint": self._workload.endpoint,
                "key_variable": self._workload.key_variable,
            }
        )
        return worker.receive()

    def _measure(
        self, worker: WorkerProcess, session: Session, test: Test, variant: ModelVariant
    ) -> _Samples:
        samples = _Samples()
        try:
            _check_context(test, variant)
            worker.send(
                {
                    "test": asdict(test),
                    "vocabulary": variant.vocabulary,
                    "repetitions": self._workload.repetitions,
                    "max_seconds": self._workload.max_seconds,
                }
            )
            self._show(session, f"{test.title}, warming up")
            while "done" not in (message := worker.receive()):
                if "slept" in message:
                    samples.add(message)
                self._show(session, f"{test.title}, {self._doing(len(samples.seconds))}")
            samples.end = message
        except EdgeLLMError as error:
            samples.error = error_sentence(error)
            samples.worker_ended = isinstance(error, WorkerEndedError)
        return samples

    def _doing(self, repetitions: int) -> str:
        if repetitions < self._workload.repetitions:
            return f"repetition {repetitions + 1} of {self._workload.repetitions}"
        return "single steps"

    def _show(self, session: Session, doing: str) -> None:
        self._progress(Status(min(self._number, self.total), self.total, session.title, doing))


def _check_context(test: Test, variant: ModelVariant) -> None:
    """Raise BackendError where a test has more tokens than the model has positions."""
    tokens = test.depth + test.tokens
    if variant.context and tokens > variant.context:
        raise BackendError(
            f"{test.name} takes {tokens} tokens, and the model's context is {variant.context}",
            hint="give a smaller --depth, or fewer tokens",
        )


def _record(
    session: Session,
    test: Test,
    variant: ModelVariant,
    *,
    loaded: Message,
    samples: _Samples,
    rates: Rates | None,
) -> SpeedRecord:
    if loaded["read_rate"] is not None:  # the runtime's own device
        rates = Rates(loaded["read_rate"], loaded["multiply_rate"])
    common = _common(session, variant) | loaded.get("cluster", {})
    if loaded.get("model"):  # the server's name of it
        common["model"] = loaded["model"]
    record = SpeedRecord(
        **common,
        device=loaded["device"],
        test=test.name,
        tokens=samples.end.get("tokens", test.tokens),
        depth=test.depth,
        batch=test.batch,
        seconds=tuple(samples.seconds),
        step_seconds=tuple(samples.end.get("steps", ())),
        first_token_seconds=tuple(samples.first_token_seconds),
        slept=samples.slept,
        energy_joules=tuple(samples.joules),
        energy_source=samples.end.get("energy_source"),
        arithmetic=loaded["arithmetic"],
        load_seconds=loaded["load_seconds"],
        weight_bytes_per_token=loaded["weight_bytes_per_token"],
        peak_memory_bytes=samples.end.get("peak_memory_bytes"),
        flops=variant.flops(prompt=test.kind == "pp", tokens=test.tokens, batch=test.batch),
        error=samples.error,
    )
    return with_rates(record, rates)


def _failed(session: Session, error: EdgeLLMError) -> SpeedRecord:
    """Return the record of a session that could not begin."""
    common = _common(session, UNKNOWN)
    reason = error_sentence(error)
    return SpeedRecord(**common, device=machine.chip_name(), test=LOAD, error=reason)


def _common(session: Session, variant: ModelVariant) -> dict[str, Any]:
    settings = session.settings
    return {
        "model": session.model,
        "backend": session.backend,
        "environment": environment(),
        "threads": settings.threads,
        "bits": variant.bits or session.bits,
        "memory_bytes": settings.memory,
        "dtype": settings.dtype,
        "tensor_parallel": settings.tensor_parallel,
        "model_bytes": variant.nbytes,
    }
