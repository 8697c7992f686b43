"""The bench's side of a worker that holds one model: orders, and what comes back of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.bench.evaluation.runs.run import EvaluatedModel
from edgellm.bench.worker.process import WorkerEndedError, WorkerProcess
from edgellm.errors import BackendError

ASKED_AT_ONCE = 512
"""Prompts of an order: all are cut into tokens before the first is answered."""

COSTS = ("tokens", "bytes_read", "layer_tokens", "head_rows")
"""What an order says at its end, and that adds up."""

WORKER = (sys.executable, "-m", "edgellm.bench.evaluation.runs.worker")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it was loaded.

    Attributes:
        load_seconds: until it could compute.
        device: the chip.
        arithmetic: the code path, in words.
        kv_bits: bits of numbers in the KV cache.
        machines: where there are several, those.
        links: between them.
        split: what each of them has.
    """

    load_seconds: float
    device: str
    arithmetic: str
    kv_bits: int | None
    machines: Sequence[Mapping[str, Any]] = ()
    links: Sequence[Mapping[str, Any]] = ()
    split: str | None = None


class Session:
    """A model in a process of its own, which starts when it is first needed.

    Args:
        model: the model.
        timeout: seconds in which it must say something.
        at_once: prompts of an order of ``ask_many``.

    Attributes:
        model: the model.
        ended: what the last order took.
    """

    def __init__(
        self, model: EvaluatedModel, *, timeout: float, at_once: int = ASKED_AT_ONCE
    ) -> None:
        self.model: EvaluatedModel = model
        self.ended: Mapping[str, Any] = {}
        self._timeout, self._at_once = timeout, at_once
        self._started: tuple[WorkerProcess, LoadedModel] | None = None
        self._refused: BackendError | None = None

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the process, if there is one."""
        if self._started is not None and kind is None:
            self._started[0].close()
        else:
            self._kill()

    @property
    def loaded(self) -> LoadedModel:
        """How the model was loaded. Raises BackendError where it cannot be."""
        return self._start()[1]

    def ask(
        self, work: str, prompts: Sequence[Mapping[str, Any]], **others: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield what comes back of prompts, as it comes.

        A worker that is gone, or whose answers are not read to their end, is replaced by a new one
        when the next question is asked.

        Args:
            work: ``options``, ``generated``, ``read``, ``latency`` and so on.
            prompts: as ``Run.messages`` makes them.
            others: what else the work needs.

        Raises:
            BackendError: the model cannot be loaded, or the worker cannot do it.
            WorkerEndedError: the worker is gone.
        """
        worker, _ = self._start()
        worker.send({"do": work, "prompts": list(prompts), **others})
        is_at_rest = False
        try:
            while not (message := worker.receive()).get("done"):
                yield message
            self.ended = message
            is_at_rest = True
        except WorkerEndedError:
            raise
        except BackendError:  # the worker has said so, and waits for the next order
            is_at_rest = True
            raise
        finally:
            if not is_at_rest:
                self._kill()

    def ask_many(
        self, work: str, prompts: Sequence[Mapping[str, Any]], **others: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield what ``ask`` does, a part of the prompts after the other; costs add up."""
        sums: Counter[str] = Counter()
        for begin in range(0, len(prompts), self._at_once):
            for message in self.ask(work, prompts[begin : begin + self._at_once], **others):
                yield {**message, "place": begin + message["place"]}
            sums.update({name: self.ended[name] for name in COSTS if name in self.ended})
        self.ended = sums

    def _kill(self) -> None:
        if self._started is not None:
            self._started[0].kill()
            self._started = None

    def _start(self) -> tuple[WorkerProcess, LoadedModel]:
        if self._refused is not None:  # what could not be loaded once is not tried for each run
            raise self._refused
        if self._started is None:
            load = self.model.load
            worker = WorkerProcess(
                timeout=self._timeout, command=WORKER, threads=load.get("threads")
            )
            try:
                path = str(self.model.checkpoint.folder.path)
                worker.send({"model": path, "load": dict(load)})
                self._started = worker, LoadedModel(**worker.receive())
            except BaseException as error:
                worker.kill()
                if isinstance(error, BackendError):
                    self._refused = error
                raise
        return self._started
