"""A worker that loads a model with one part left out, and times tokens when it is told to.

The first order says what to load and what to leave out, each one after it what to time (see
``bench.worker.protocol``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgellm.bench.worker.protocol import Message, Send, run_worker
from edgellm.checkpoint.buffer import Extent
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine as device
from edgellm.llm import LLM
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.open_llm import open_llm
from edgellm.reading.disk_reader import Reader, Ticket
from edgellm.runtime.loader import open_reader
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer


class LateTicket(Ticket):
    """A read that begins when somebody waits for it."""

    def __init__(self, reader: Reader, extents: Sequence[Extent], memory: memoryview) -> None:
        super().__init__(1)
        self._request = (reader, extents, memory)
        self._read: Ticket | None = None

    def done(self) -> bool:
        """Return whether all bytes have arrived, or the read has failed."""
        return self._read is not None and self._read.done()

    def settle(self) -> None:
        """Read, and wait until the read has ended."""
        self._begin().settle()

    def wait(self) -> None:
        """Read, and wait for all bytes. Raises ReadError."""
        self._begin().wait()

    def _begin(self) -> Ticket:
        if self._read is None:
            reader, extents, memory = self._request
            self._read = reader.submit(extents, memory)
        return self._read


class LateReader:
    """A reader that reads a layer when it is needed, and nothing ahead."""

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
        """Return a read that begins when it is waited for."""
        return LateTicket(self._reader, extents, memory)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()


def without_pinning(plan: Plan) -> Plan:
    """Return the plan with every layer streamed; the memory of pinned ones stays free."""
    return replace(
        plan,
        pinned=(),
        streamed=tuple(range(len(plan.pinned) + len(plan.streamed))),
        pinned_bytes=0,
        streamed_bytes=plan.streamed_bytes + plan.pinned_bytes,
        total_bytes=plan.total_bytes - plan.pinned_bytes,
    )


def serve(order: Message, tests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, then time tokens for each of the others."""
    time_tokens = _time_cached
    if order["without"] == "cache":
        time_tokens = _time_uncached
    with _load(order) as llm:
        plan = llm.plan
        send(
            {
                "layers": len(plan.pinned) + len(plan.streamed),
                "pinned": len(plan.pinned),
                "resident": plan.resident,
                "streamed_bytes": plan.streamed_bytes,
            }
        )
        for test in tests:
            seconds = time_tokens(llm, test["prompt"], test["tokens"])
            send({"seconds": seconds, "peak_memory_bytes": device.peak_process_memory()})


def _load(order: Message) -> LLM:
    folder = Path(order["folder"])
    settings = LoadSettings(**order["load"], speculate="off")
    checkpoint = read_checkpoint(folder)
    plan = plan_for(checkpoint, settings)
    if order["without"] == "pinning":
        plan = without_pinning(plan)
    reader: Reader = open_reader(checkpoint, plan)
    if order["without"] == "prefetch":
        reader = LateReader(reader)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    llm = open_llm(checkpoint, tokenizer, settings, reader=reader, plan=plan)
    llm.eos_token_ids = frozenset()  # every repetition has as many tokens
    return llm


def _time_cached(llm: LLM, prompt: Sequence[int], count: int) -> float:
    """Return seconds of some tokens after a prompt whose own time does not count."""
    stream = llm.stream(prompt, max_tokens=count + 1)
    next(stream)
    begun = time.perf_counter()
    for _ in stream:
        pass
    return time.perf_counter() - begun


def _time_uncached(llm: LLM, prompt: Sequence[int], count: int) -> float:
    """Return seconds of the same tokens where each computes all that come before it again."""
    ids = [*prompt, _next_token(llm, prompt)]
    begun = time.perf_counter()
    for _ in range(count):
        ids.append(_next_token(llm, ids))
    return time.perf_counter() - begun


def _next_token(llm: LLM, tokens: Sequence[int]) -> int:
    (token,) = llm.stream(tokens, max_tokens=1)
    assert token.id is not None, "nobody has cancelled"
    return token.id


if __name__ == "__main__":
    run_worker(serve)
