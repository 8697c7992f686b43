"""Measure what a batch is worth: tokens/s of one sequence, of several, and of a prompt.

    python -m edgellm.bench.studies.batching [MODEL]
        [--batch 8] [--memory 2GB] [--steps 16] [--rounds 5]

They take turns. Sequences have prompts of different lengths and go on greedily, token by token.
``goal`` is the least that a batch should yield: 0.8 of what the arithmetic allows, min(batch,
prompt rate / decode rate), and paged 6 of 8. Records go to stdout as JSON, figures to stderr.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.record import Record
from edgellm.bench.tables.text_tables import Column, as_json, as_table, number
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine as device
from edgellm.engine.scheduling.batched_forward import SequenceInput, forward
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.settings import DEFAULT_MODEL

COLUMNS: Mapping[str, Column] = {
    "test": ("test", str),
    "batch": ("batch", str),
    "tokens/s": ("tokens_per_second", number(2)),
}
SHORTEST = 8
"""Tokens of the first sequence's prompt; the others have three more each."""

PROMPT = 256
"""Tokens of the prompt whose rate is measured."""

RESIDENT_GOAL = 0.8
"""The least that a batch should yield, as a fraction of what is possible."""

PAGED_GOAL = 0.75
"""The same where layers come from disk once for all sequences."""


def decode_runner(llm: LLM, batch: int, steps: int) -> Callable[[], float]:
    """Return a function that times greedy steps with ``batch`` sequences, in seconds.

    Each call begins where the prompts end.
    """
    model, chunk = llm.model, llm.plan.prefill_chunk
    lengths = [SHORTEST + 3 * number for number in range(batch)]
    capacity = lengths[-1] + steps + 1
    caches = [llm.caches.make(capacity=capacity, reserve=capacity) for _ in lengths]
    # any tokens do, as long as no two prompts are alike
    prompts = [
        [(31 * number + place) % 1000 + 3 for place in range(length)]
        for number, length in enumerate(lengths)
    ]
    inputs = [
        SequenceInput(prompt, own, len(prompt)) for prompt, own in zip(prompts, caches, strict=True)
    ]
    first, _ = forward(model, inputs, prefill_chunk=chunk)
    assert first is not None, "nobody breaks it off"
    begin = _likeliest(first)

    def run() -> float:
        for own, length in zip(caches, lengths, strict=True):
            for cache in own:
                cache.trim(length)
        tokens = begin
        begun = time.perf_counter()
        for _ in range(steps):
            logits, _ = forward(
                model,
                [SequenceInput([token], own) for token, own in zip(tokens, caches, strict=True)],
                prefill_chunk=chunk,
            )
            assert logits is not None, "nobody breaks it off"
            tokens = _likeliest(logits)
        return time.perf_counter() - begun

    return run


def _likeliest(logits: mx.array) -> list[int]:
    tokens: Any = mx.argmax(logits, axis=-1).tolist()
    return list(tokens)


def prompt_runner(llm: LLM) -> Callable[[], float]:
    """Return a function that sends a prompt through the model, and returns the seconds."""
    caches = llm.caches.make(capacity=PROMPT, reserve=PROMPT)

    def run() -> float:
        for cache in caches:
            cache.trim(0)
        prompt = SequenceInput(range(3, 3 + PROMPT), caches, PROMPT)
        begun = time.perf_counter()
        forward(llm.model, [prompt], prefill_chunk=llm.plan.prefill_chunk)
        return time.perf_counter() - begun

    return run


def measure(llm: LLM, *, name: str, batch: int, steps: int, rounds: int) -> list[Record]:
    """Return records of one sequence, a batch and, of a resident model, a prompt, in turns."""
    runs: dict[tuple[str, int, int], Callable[[], float]] = {
        (f"tg{steps}", 1, steps): decode_runner(llm, 1, steps),
        (f"tg{steps}", batch, steps): decode_runner(llm, batch, steps),
    }
    if llm.plan.resident:
        runs[f"pp{PROMPT}", 1, PROMPT] = prompt_runner(llm)
    samples: dict[tuple[str, int, int], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            samples[key].append(run())
    where = environment()
    return [
        Record(
            model=name,
            backend=OWN,
            device=device.chip_name(),
            test=test,
            batch=count,
            tokens=tokens,
            seconds=tuple(seconds),
            memory_bytes=llm.plan.budget,
            environment=where,
        )
        for (test, count, tokens), seconds in samples.items()
    ]


def verdict(records: Sequence[Record], *, batch: int) -> str:
    """Say how many times the tokens/s of one sequence a batch yields, and how many it should."""
    one, many, *prompt = (record.tokens_per_second or 0.0 for record in records)
    goal = PAGED_GOAL * batch
    if prompt:
        goal = RESIDENT_GOAL * min(batch, prompt[0] / one)
    return f"{batch} sequences: {many / one:.2f} times the tokens/s of one; goal {goal:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m edgellm.bench.studies.batching",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument(
        "model", nargs="?", default=DEFAULT_MODEL, help="a folder, a Hub id or a bundled name"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--memory", help="the budget, as load takes it")
    parser.add_argument(
        "--context",
        type=int,
        help="tokens that the plan has room for, those of all sequences together",
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=16, help="tokens of each sequence in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    folder = locate(options.model)
    least = sum(SHORTEST + 3 * number + options.steps + 1 for number in range(options.batch))
    context = options.context or min(
        2 * least, read_checkpoint(folder).config.max_position_embeddings
    )
    with load(
        folder, memory=options.memory, threads=options.threads, context=context, speculate="off"
    ) as llm:
        name = Path(options.model).name
        records = measure(
            llm, name=name, batch=options.batch, steps=options.steps, rounds=options.rounds
        )
        sys.stderr.write(
            f"{len(llm.plan.pinned)} of {llm.config.num_hidden_layers} layers in memory\n"
        )
    sys.stderr.write(f"{as_table(records, COLUMNS)}\n\n{verdict(records, batch=options.batch)}\n")
    sys.stdout.write(as_json(records) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
