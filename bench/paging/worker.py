"""A worker for one budget: it loads a model, and decodes when it is told to.

The first order says what to load, each one after it how many tokens to time; 0 ends the decoding
(see ``bench.worker.protocol``).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from edgellm.bench.worker.protocol import Message, Send, run_worker
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine as device
from edgellm.llm import LLM
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.open_llm import open_llm
from edgellm.reading.disk_reader import DiskReader
from edgellm.runtime.loader import open_reader
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

PROMPT_TOKEN = 1
POLL_SECONDS = 0.005
"""Between two looks at a reader that is still busy."""


def serve(order: Message, requests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, send what was planned, and follow the others."""
    folder = Path(order["folder"])
    settings = LoadSettings(**order["load"], speculate="off")
    begun = time.perf_counter()
    checkpoint = read_checkpoint(folder)
    plan = plan_for(checkpoint, settings)
    reader = open_reader(checkpoint, plan)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    with open_llm(checkpoint, tokenizer, settings, reader=reader) as llm:
        send({"plan": plan.as_dict(), "load_seconds": time.perf_counter() - begun})
        stream = _endless_tokens(llm)
        next(stream)  # the first pass is for warmth
        _wait_until_idle(reader)
        for request in requests:
            if not request["tokens"]:
                break
            send({"seconds": _time_tokens(stream, request["tokens"])})
            _wait_until_idle(reader)
        send({"peak_memory_bytes": device.peak_process_memory(), "direct_reads": reader.direct})
        stream.close()
    mx.clear_cache()
    step = measure_step(checkpoint, settings)
    send({"resident_seconds": step.seconds, "weight_bytes": step.weight_bytes})


def _endless_tokens(llm: LLM) -> Generator[Any]:
    """Yield tokens without end, each for one pass over the weights.

    That is so also of the first token of a text, since the prompt is one token.
    """
    while True:
        yield from llm.stream([PROMPT_TOKEN], max_tokens=max(1, llm.context - 2))


def _time_tokens(stream: Iterator[Any], tokens: int) -> float:
    """Return seconds of some tokens in mid-stream.

    The token before them uses up what was read while nobody asked for tokens.
    """
    next(stream)
    begun = time.perf_counter()
    for _ in range(tokens):
        next(stream)
    return time.perf_counter() - begun


def _wait_until_idle(reader: DiskReader) -> None:
    """Wait until the reader has filled its buffers and leaves the disk alone."""
    while not reader.idle:
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    run_worker(serve)
