"""The backends ``cpu`` and ``cuda``, on one rank or several that start and end here."""

# B sequences at once, L tokens, V vocabulary

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgellm.bench.backends.registry import Runtime, RuntimeSettings
from edgellm.bench.machine.rates import Rates
from edgellm.bench.worker.process import WorkerEndedError, WorkerProcess
from edgellm.device import machine
from edgellm.errors import BackendError, ClosedError

Device = Literal["cpu", "cuda"]

START_AGAIN = "see what else this machine computes, and whether a rank's process was stopped"

RANK = (sys.executable, "-m", "edgellm.bench.torch_backend.tensor_parallel.rank")

PATIENCE_SECONDS = 60.0
"""After which a rank that waits where all meet says that the others are lost."""

LOOK_SECONDS = 1.0
"""After a rank has failed: the one that began it may be seen a little later than who noticed."""

Answer = Mapping[str, Any]


class _LostOthersError(BackendError):
    """A rank waited for others in vain."""


def open_cpu(model: str, settings: RuntimeSettings) -> Runtime:
    """Open a model in torch on the processor. Raises BackendError."""
    if settings.tensor_parallel > 1:
        return Ranks("cpu", model, settings)
    from edgellm.bench.torch_backend.runtime import CPURuntime

    return CPURuntime(model, settings)


def open_cuda(model: str, settings: RuntimeSettings) -> Runtime:
    """Open a model in torch on NVIDIA GPUs. Raises BackendError."""
    if settings.tensor_parallel > 1:
        return Ranks("cuda", model, settings)
    from edgellm.bench.torch_backend.runtime import CUDARuntime

    return CUDARuntime(model, settings)


class Ranks:
    """A model whose matrices several processes compute together.

    None of them outlives it, or another one: where a rank fails, all end, and the next ``begin``
    or ``logits`` starts them anew.

    Args:
        device: what each computes on, a GPU of its own or the processor.
        model: the folder.
        settings: of the model; threads are divided among the ranks.
        patience: seconds that a rank waits for others.

    Raises:
        BackendError: a rank could not load its part; the error names it.
    """

    def __init__(
        self,
        device: Device,
        model: str,
        settings: RuntimeSettings,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.size: int = settings.tensor_parallel
        self._on, self._model, self._patience = device, model, patience
        threads = settings.threads or machine.core_count()
        self._threads = max(1, threads // self.size) if device == "cpu" else None
        self._settings = replace(settings, threads=self._threads)
        self._pool = ThreadPoolExecutor(self.size, thread_name_prefix="edgellm-ranks")
        self._ranks: list[WorkerProcess] = []
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False
        loaded = self._start()
        self.device: str = loaded[0]["device"]
        if device == "cuda":
            self.device = f"{self.size} x {self.device}"
        self.arithmetic: str = f"{loaded[0]['arithmetic']}, tensor parallel {self.size}"
        self.weight_bytes_per_token: int | None = sum(
            one["weight_bytes_per_token"] for one in loaded
        )

    @property
    def pids(self) -> list[int]:
        """The numbers of the ranks' processes; none after one has failed."""
        return [rank.pid for rank in self._ranks]

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make empty caches for sequences of ``capacity`` tokens each. Raises BackendError."""
        self._start_again()
        self._all({"do": "begin", "batch": batch, "capacity": capacity})

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L) to the sequences, and compute the logits after the last ones."""
        self._all({"do": "prefill", "tokens": tokens.tolist()})

    def decode(self, count: int) -> None:
        """Take ``count`` greedy steps, each of one token a sequence."""
        self._all({"do": "decode", "count": count})

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence. Raises BackendError where ranks differ."""
        found: list[list[int]] = [answer["tokens"] for answer in self._all({"do": "last_tokens"})]
        for rank, tokens in enumerate(found):
            if tokens != found[0]:
                raise BackendError(
                    f"rank {rank} has the tokens {tokens}, and rank 0 {found[0]}",
                    hint="their devices compute otherwise: give all ranks the same kind",
                )
        return found[0]

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        self._start_again()
        assert self._place is not None, "the ranks were started"
        file = Path(self._place.name) / "logits.npy"
        self._all({"do": "logits", "tokens": list(map(int, tokens)), "file": str(file)})
        found: npt.NDArray[np.float32] = np.load(file)
        return found

    def measure_rates(self) -> Rates | None:
        """Read and multiply on all GPUs at once; None where the processor computes."""
        if self._on == "cpu":
            return None
        found = self._all({"do": "rates"})
        return Rates(sum(one["read"] for one in found), sum(one["multiply"] for one in found))

    def peak_device_memory(self) -> int | None:
        """Return the most bytes that all ranks have held, on their GPUs or as processes."""
        return sum(int(answer["bytes"]) for answer in self._all({"do": "peak"}))

    def close(self) -> None:
        """End the ranks."""
        self._closed = True
        list(self._pool.map(WorkerProcess.close, self._ranks))
        self._end()
        self._pool.shutdown()

    def _start_again(self) -> None:
        if self._closed:
            raise ClosedError("the model was closed")
        if not self._ranks:
            self._start()

    def _start(self) -> list[Answer]:
        """Start all ranks, and return what each says of its part. Raises BackendError."""
        with ExitStack() as undo:
            undo.callback(self._end)
            self._place = tempfile.TemporaryDirectory(prefix="edgellm-ranks-")
            for rank in range(self.size):
                self._ranks.append(WorkerProcess(command=RANK, timeout=None, threads=self._threads))
                self._ranks[rank].send(
                    {
                        "rank": rank,
                        "size": self.size,
                        "device": self._on,
                        "meeting": str(Path(self._place.name) / "meeting"),
                        "patience": self._patience,
                        "model": self._model,
                        "settings": asdict(self._settings),
                    }
                )
            answers = self._answers()
            undo.pop_all()
        return answers

    def _all(self, order: Answer) -> list[Answer]:
        """Have all ranks do something, and return their answers. Raises BackendError."""
        if not self._ranks:
            raise BackendError("the ranks have ended", hint="begin anew: they are started again")
        for rank in self._ranks:
            rank.send(order)
        return self._answers()

    def _answers(self) -> list[Answer]:
        """Wait for all ranks; where one fails, end all. Raises BackendError."""
        answers = [self._pool.submit(partial(_received, rank)) for rank in self._ranks]
        try:
            wait(answers, return_when=FIRST_EXCEPTION)
            if any(_error(answer) for answer in answers):
                wait(answers, timeout=LOOK_SECONDS)
                raise self._failure(answers)
            return [answer.result() for answer in answers]
        except BaseException:
            self._end()
            raise

    def _failure(self, answers: Sequence[Future[Answer]]) -> BackendError:
        """Return the error of the rank that began it, and not of one that only noticed."""
        errors = {rank: _error(answer) for rank, answer in enumerate(answers)}
        for kind in (WorkerEndedError, BackendError):
            for rank, error in errors.items():
                if isinstance(error, kind) and not isinstance(error, _LostOthersError):
                    return BackendError(
                        f"rank {rank} of {self.size}: {error.message}", hint=error.hint
                    )
        silent = [rank for rank, answer in enumerate(answers) if not answer.done()]
        noticed = next(error for error in errors.values() if error is not None)
        who = "the ranks did not meet"
        if silent:
            who = f"rank {silent[0]} of {self.size} did not come to where all meet"
        return BackendError(f"{who}: {noticed.message}", hint=noticed.hint)

    def _end(self) -> None:
        """Kill all ranks that are left."""
        ranks, self._ranks = self._ranks, []
        for rank in ranks:
            rank.kill()
        if self._place is not None:
            self._place.cleanup()
            self._place = None


def _received(rank: WorkerProcess) -> Answer:
    """Return a rank's next answer. Raises BackendError."""
    answer = rank.receive()
    if "lost" in answer:
        raise _LostOthersError(answer["lost"], hint=START_AGAIN)
    return answer


def _error(answer: Future[Answer]) -> BackendError | None:
    """Return what a rank's answer failed with, so far."""
    if not answer.done():
        return None
    error = answer.exception()
    if error is None or isinstance(error, BackendError):
        return error
    raise error
