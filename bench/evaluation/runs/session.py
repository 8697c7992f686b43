"""The bench's side of a worker that holds one model: orders, and what comes back of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.bench.worker.process import WorkerProcess

WORKER = (sys.executable, "-m", "edgellm.bench.evaluation.runs.worker")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it was loaded.

    Attributes:
        load_seconds: until it could compute.
        device: the chip.
        arithmetic: the code path, in words.
        context: tokens of its context window.
        kv_bits: bits of numbers in the KV cache.
        has_chat_template: whether it can be asked in a conversation.
    """

    load_seconds: float
    device: str
    arithmetic: str
    context: int
    kv_bits: int | None
    has_chat_template: bool


class Session:
    """A model in a process of its own, which starts at once.

    Args:
        model: the folder.
        load: fields of ``LoadSettings``.
        timeout: seconds in which it must say something.

    Attributes:
        loaded: how the model was loaded.
        ended: what the last order took.

    Raises:
        BackendError: the model cannot be loaded; says why.
    """

    def __init__(self, model: str, load: Mapping[str, Any], *, timeout: float) -> None:
        self._worker = WorkerProcess(timeout=timeout, command=WORKER, threads=load.get("threads"))
        try:
            self._worker.send({"model": model, "load": dict(load)})
            self.loaded: LoadedModel = LoadedModel(**self._worker.receive())
        except BaseException:
            self._worker.kill()
            raise
        self.ended: Mapping[str, Any] = {}

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the process."""
        if kind is None:
            self._worker.close()
        else:
            self._worker.kill()

    def ask(
        self, work: str, prompts: Sequence[Mapping[str, Any]], **others: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield what comes back of prompts, as it comes.

        Args:
            work: ``options``, ``generated``, ``read``, ``latency`` and so on.
            prompts: as ``prompt_message`` makes them.
            others: what else the work needs.

        Raises:
            BackendError: the worker cannot do it.
            WorkerEndedError: the worker is gone.
        """
        self._worker.send({"do": work, "prompts": list(prompts), **others})
        while not (message := self._worker.receive()).get("done"):
            yield message
        self.ended = message
