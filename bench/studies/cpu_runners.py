"""Run the backends that ``cpu_kernels`` compares, each in a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from edgellm.bench.backends.registry import Runtime, RuntimeSettings, open_runtime
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import Message, Send, run_worker
from edgellm.errors import BackendError

FIRST_TOKEN = 300
"""Prompts are ids from here on: behind the special tokens of every vocabulary."""

MEMORY = 64 << 30
"""A budget that holds every model whole."""


class Runner:
    """A process that holds one model and does tests when it is told to.

    Raises:
        BackendError: the model cannot be loaded, or not run.
    """

    def __init__(self, backend: str, file: Path, threads: int) -> None:
        command = [sys.executable, "-m", "edgellm.bench.studies.cpu_runners"]
        self._worker = WorkerProcess(command=command, timeout=None)
        try:
            self._worker.send({"backend": backend, "file": str(file), "threads": threads})
            self.run("pp", 8)
        except BackendError:
            self.close()
            raise

    def run(self, test: str, tokens: int) -> float:
        """Return the seconds of a test. Raises BackendError where it fails."""
        self._worker.send({"test": test, "tokens": tokens})
        seconds: float = self._worker.receive()["seconds"]
        return seconds

    def close(self) -> None:
        """End the process."""
        self._worker.kill()


def serve(order: Message, tests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, then time each test that comes."""
    settings = RuntimeSettings(threads=order["threads"], memory=MEMORY)
    with closing(open_runtime(order["backend"], order["file"], settings)) as runtime:
        for test in tests:
            send({"seconds": time_test(runtime, test["test"], test["tokens"])})


def time_test(runtime: Runtime, test: str, tokens: int) -> float:
    """Return seconds of a prompt (``pp``), or of that many tokens after one (``tg``)."""
    prompt = np.arange(FIRST_TOKEN, FIRST_TOKEN + tokens)[None]  # (1, L)
    runtime.begin(batch=1, capacity=tokens + 2)
    if test == "tg":
        runtime.prefill(prompt[:, :1])
    begun = time.perf_counter()
    if test == "pp":
        runtime.prefill(prompt)
    else:
        runtime.decode(tokens)
    return time.perf_counter() - begun


if __name__ == "__main__":
    run_worker(serve)
