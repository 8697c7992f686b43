"""A process of its own that says what one model in one runtime makes of a text: its logits, in files, and how it goes on.

It speaks lines of JSON as ``worker`` does: the first names the runtime and the model, each one
after it what to compute.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from edgellm.bench.backends.registry import Runtime, RuntimeSettings, open_runtime
from edgellm.bench.worker.protocol import Send, report_errors, stdout_channel


@runtime_checkable
class Continues(Protocol):
    """A runtime that can say which tokens it decodes; of others they are found from logits of ever longer prompts."""

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """The ``count`` likeliest tokens after a prompt."""
        ...


def main() -> None:
    """Load what the first line names, then compute."""
    send = stdout_channel()
    order = json.loads(sys.stdin.readline())
    with report_errors(send):
        runtime = open_runtime(
            order["backend"], order["model"], RuntimeSettings(**order["settings"])
        )
        try:
            send({"device": runtime.device, "arithmetic": runtime.arithmetic})
            for line in sys.stdin:
                _do(runtime, json.loads(line), send)
        finally:
            runtime.close()


def _do(runtime: Runtime, order: Mapping[str, Any], send: Send) -> None:
    if "file" in order:
        logits = runtime.logits(order["tokens"])
        np.save(order["file"], logits)
        send({"shape": list(logits.shape)})
    else:
        send({"greedy": greedy(runtime, order["tokens"], order["count"])})


def greedy(runtime: Runtime, tokens: Sequence[int], count: int) -> list[int]:
    """The ``count`` likeliest tokens after a prompt, each found after the ones before it."""
    if isinstance(runtime, Continues):
        return runtime.greedy(tokens, count)
    found: list[int] = []
    for _ in range(count):
        found.append(int(runtime.logits([*tokens, *found])[-1].argmax()))
    return found


if __name__ == "__main__":
    main()
