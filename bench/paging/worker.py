"""A process of its own for one budget, so that its memory is its own: loads a model, and decodes when it is told to.

It speaks lines of JSON: what it has found on standard output, what it is to do on standard input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine as device
from edgellm.errors import EdgeLLMError
from edgellm.llm import LLM
from edgellm.open_llm import open_llm
from edgellm.plan.planner import plan_for
from edgellm.reading.disk_reader import DiskReader
from edgellm.runtime.loader import disk_reader
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

PROMPT_TOKEN = 1


def main(folder: str, settings: str) -> None:
    """Load a model, say what was planned, and follow what standard input says until it ends."""
    try:
        _serve(Path(folder), LoadSettings(**{**json.loads(settings), "speculate": "off"}))
    except EdgeLLMError as error:
        _say({"error": error.message})


def _serve(folder: Path, settings: LoadSettings) -> None:
    begun = time.perf_counter()
    checkpoint = read_checkpoint(folder)
    plan = plan_for(checkpoint, settings)
    reader = disk_reader(checkpoint, plan)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    with open_llm(checkpoint, tokenizer, settings, reader=reader) as llm:
        _say({"plan": plan.as_dict(), "load_seconds": time.perf_counter() - begun})
        stream = _endless(llm)
        _settle(stream, reader)
        for line in sys.stdin:
            tokens = json.loads(line)
            if not tokens:
                break
            _say({"seconds": _timed(stream, tokens)})
            _settle(None, reader)
        _say({"peak_memory_bytes": device.peak_process_memory(), "direct_reads": reader.direct})
        stream.close()
    mx.clear_cache()
    step = measure_step(checkpoint, settings)
    _say({"resident_seconds": step.seconds, "weight_bytes": step.weight_bytes})


def _endless(llm: LLM) -> Generator[Any]:
    """Tokens without end. Each costs one pass over the weights, also the first of an answer, whose prompt is one token."""
    while True:
        yield from llm.stream([PROMPT_TOKEN], max_tokens=max(1, llm.context - 2))


def _timed(stream: Iterator[Any], tokens: int) -> float:
    """Seconds of some tokens, in mid-stream: the one before them uses up what was read while nobody asked for tokens."""
    next(stream)
    begun = time.perf_counter()
    for _ in range(tokens):
        next(stream)
    return time.perf_counter() - begun


def _settle(stream: Iterator[Any] | None, reader: DiskReader) -> None:
    """Wait until the reader has filled its slots and leaves the disk alone."""
    if stream is not None:
        next(stream)
    while not reader.idle:
        time.sleep(0.005)


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
