"""A model in a worker's process: loaded as an order says, and asked for completions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgellm.bench.backends.cluster_facts import cluster_fields
from edgellm.bench.backends.edgellm_mlx import describe_arithmetic
from edgellm.bench.worker.protocol import Message, Send
from edgellm.device import machine
from edgellm.generation.output import Completion, Token, completion_of
from edgellm.llm import LLM
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint
from edgellm.open_llm import load
from edgellm.settings import LoadSettings, Sampling


@contextmanager
def loaded(order: Message, send: Send) -> Iterator[LLM]:
    """Load a model as an order says, send how that was, and have it ready in a ``with`` block."""
    settings = LoadSettings(**order["load"])
    begun = time.perf_counter()
    with load(order["model"], settings) as llm:
        seconds = time.perf_counter() - begun
        checkpoint, paged = read_any_checkpoint(llm.path), not llm.plan.resident
        send(
            {
                "load_seconds": seconds,
                "device": machine.chip_name(),
                "arithmetic": describe_arithmetic(checkpoint, settings, paged=paged),
                "kv_bits": llm.plan.kv_bits,
                **cluster_fields(llm),
            }
        )
        # what is compiled or read at first use is not the questions'
        llm.generate("Hello", max_tokens=2)
        yield llm


def completions(
    llm: LLM, prompts: Sequence[list[int]], samplings: Sequence[Sampling]
) -> Iterator[tuple[int, Completion]]:
    """Yield completions with their prompts' places, as they end; those by beams come last.

    Raises EdgeLLMError where one fails.
    """
    together = [place for place, one in enumerate(samplings) if one.beams == 1]
    open_tokens: dict[int, list[Token]] = defaultdict(list)
    stream = llm.stream_batch(
        [prompts[place] for place in together], [samplings[place] for place in together]
    )
    for number, token in stream:
        if token.error is not None:
            raise token.error
        open_tokens[number].append(token)
        if token.finish_reason is not None:
            yield together[number], completion_of(open_tokens.pop(number))
    for place, sampling in enumerate(samplings):
        if sampling.beams > 1:
            yield place, llm.generate(prompts[place], sampling)
