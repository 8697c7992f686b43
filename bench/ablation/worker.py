"""A process of its own for a model with one part left out: loads it, and times tokens when it is told to.

It speaks lines of JSON as ``worker`` does: the first says what to load and what to leave out, each
one after it what to time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgellm.bench.worker.protocol import Send, report_errors, stdout_channel
from edgellm.checkpoint.buffer import Extent
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine as device
from edgellm.llm import LLM
from edgellm.open_llm import open_llm
from edgellm.plan.plan import Plan
from edgellm.plan.planner import plan_for
from edgellm.reading.disk_reader import Reader, Ticket
from edgellm.runtime.loader import disk_reader
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer


class LateTicket(Ticket):
    """A read that begins when somebody waits for it."""

    def __init__(self, reader: Reader, extents: Sequence[Extent], memory: memoryview) -> None:
        super().__init__(1)
        self._wanted = (reader, extents, memory)
        self._read: Ticket | None = None

    def done(self) -> bool:
        """Whether all bytes have arrived, or the read has failed."""
        return self._read is not None and self._read.done()

    def settle(self) -> None:
        """Read."""
        if self._read is None:
            reader, extents, memory = self._wanted
            self._read = reader.submit(extents, memory)
        self._read.settle()

    def wait(self) -> None:
        """Read. Raises ReadError."""
        self.settle()
        assert self._read is not None
        self._read.wait()


class LateReader:
    """The reader of a model that reads a layer when it is needed, and nothing ahead."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def bytes_read(self) -> int:
        """Bytes that have arrived so far."""
        return self._reader.bytes_read

    @property
    def busy_seconds(self) -> float:
        """Seconds so far in which at least one read was under way."""
        return self._reader.busy_seconds

    def submit(self, extents: Sequence[Extent], memory: memoryview) -> Ticket:
        """Remember what to read."""
        return LateTicket(self._reader, extents, memory)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()


def unpinned(plan: Plan) -> Plan:
    """The plan with every layer streamed; what it had pinned stays free."""
    return replace(
        plan,
        pinned=(),
        streamed=tuple(range(len(plan.pinned) + len(plan.streamed))),
        pinned_bytes=0,
        streamed_bytes=plan.streamed_bytes + plan.pinned_bytes,
        total_bytes=plan.total_bytes - plan.pinned_bytes,
    )


def main() -> None:
    """Load what the first line names, then time."""
    send = stdout_channel()
    order = json.loads(sys.stdin.readline())
    with report_errors(send), _load(order) as llm:
        plan = llm.plan
        layers, pinned = len(plan.pinned) + len(plan.streamed), len(plan.pinned)
        send(
            {
                "layers": layers,
                "pinned": pinned,
                "resident": plan.resident,
                "streamed_bytes": plan.streamed_bytes,
            }
        )
        for line in sys.stdin:
            _time(llm, json.loads(line), send, cached=order["without"] != "cache")


def _load(order: Mapping[str, Any]) -> LLM:
    folder = Path(order["folder"])
    settings = LoadSettings(**order["load"], speculate="off")
    checkpoint = read_checkpoint(folder)
    plan = plan_for(checkpoint, settings)
    if order["without"] == "pinning":
        plan = unpinned(plan)
    reader: Reader = disk_reader(checkpoint, plan)
    if order["without"] == "prefetch":
        reader = LateReader(reader)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    llm = open_llm(checkpoint, tokenizer, settings, reader=reader, plan=plan)
    llm.eos_token_ids = frozenset()  # every repetition has as many tokens
    return llm


def _time(llm: LLM, order: Mapping[str, Any], send: Send, *, cached: bool) -> None:
    """Time some tokens after a prompt whose own time does not count."""
    prompt, count = order["prompt"], order["tokens"]
    if cached:
        stream = llm.stream(prompt, max_tokens=count + 1)
        next(stream)
        begun = time.perf_counter()
        for _ in stream:
            pass
    else:
        ids = [*prompt, _next(llm, prompt)]
        begun = time.perf_counter()
        for _ in range(count):
            ids.append(_next(llm, ids))
    send(
        {"seconds": time.perf_counter() - begun, "peak_memory_bytes": device.peak_process_memory()}
    )


def _next(llm: LLM, tokens: Sequence[int]) -> int:
    """The token after some tokens, all of them computed anew."""
    (token,) = llm.stream(tokens, max_tokens=1)
    assert token.id is not None, "nobody has cancelled"
    return token.id


if __name__ == "__main__":
    main()
