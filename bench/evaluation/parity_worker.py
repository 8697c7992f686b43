"""A worker that runs one model in one backend: logits, into files, and greedy tokens.

The first order names the backend and the model, each one after it what to compute (see
``bench.worker.protocol``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

import numpy as np

from edgellm.bench.backends.registry import Runtime, RuntimeSettings, open_runtime
from edgellm.bench.worker.protocol import Message, Send, run_worker


@runtime_checkable
class DecodesGreedily(Protocol):
    """A runtime with a decoder of its own; of others tokens are found from logits of a prompt."""

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return the ``count`` likeliest tokens after a prompt."""
        ...


def serve(order: Message, requests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, then compute what each of the others asks for."""
    settings = RuntimeSettings(**order["settings"])
    with closing(open_runtime(order["backend"], order["model"], settings)) as runtime:
        send({"device": runtime.device, "arithmetic": runtime.arithmetic})
        for request in requests:
            send(_compute(runtime, request))


def _compute(runtime: Runtime, request: Message) -> dict[str, Any]:
    if "file" not in request:
        return {"greedy": greedy(runtime, request["tokens"], request["count"])}
    logits = runtime.logits(request["tokens"])
    np.save(request["file"], logits)
    return {"shape": list(logits.shape)}


def greedy(runtime: Runtime, tokens: Sequence[int], count: int) -> list[int]:
    """Return the ``count`` likeliest tokens after a prompt, each found after the ones before it."""
    if isinstance(runtime, DecodesGreedily):
        return runtime.greedy(tokens, count)
    generated: list[int] = []
    for _ in range(count):
        generated.append(int(runtime.logits([*tokens, *generated])[-1].argmax()))
    return generated


if __name__ == "__main__":
    run_worker(serve)
