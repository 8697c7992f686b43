"""The worker of an endpoint: asks a server for completions, and times how they are streamed.

A prompt is a text of as many words as tokens are wanted; how many tokens it was is what the server
says. No two prompts begin alike, so that no server answers from its prefix cache. Times include
the network's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise
from statistics import mean

from edgellm.bench.backends.one_server import key_in
from edgellm.bench.backends.openai_endpoint import Endpoint, StreamedCompletion
from edgellm.bench.speed.numbered_text import numbered_text
from edgellm.bench.speed.timing import MAX_SLEPT, SLEEP_SECONDS, Clock
from edgellm.bench.speed.workload import Test
from edgellm.bench.worker.protocol import Message, Send, error_message
from edgellm.errors import BackendError, EdgeLLMError

MIN_PROMPT = 8
"""Words that a generation goes on from where the test has no depth."""


def serve_endpoint(order: Message, tests: Iterator[Message], send: Send) -> None:
    """Connect to the server that ``order`` names, send what it is, and do the tests that come.

    Raises:
        ConfigError: the variable that holds the key is not set, or the URL is none.
        BackendError: the server does not say what models it has.
    """
    begun = time.perf_counter()
    endpoint = Endpoint(order["endpoint"], order["model"], key=key_in(order["key_variable"]))
    send(
        {
            "device": endpoint.host,
            "arithmetic": None,
            "model": endpoint.model,
            "weight_bytes_per_token": None,
            "load_seconds": time.perf_counter() - begun,
            "read_rate": None,
            "multiply_rate": None,
        }
    )
    client = _Client(endpoint)
    for test in tests:
        try:
            _run_test(client, test, send)
        except EdgeLLMError as error:
            send(error_message(error))


@dataclass(frozen=True, slots=True)
class _Client:
    """A server, and the numbers that its prompts begin with."""

    endpoint: Endpoint
    numbers: Iterator[int] = field(default_factory=lambda: count(time.time_ns()))

    def complete(self, test: Test) -> list[StreamedCompletion]:
        """Ask for as many completions at once as the test has sequences."""
        if test.kind == "pp":
            prompt_tokens, max_tokens = test.depth + test.tokens, 1
        else:
            # the time of the first token is the prompt's
            prompt_tokens, max_tokens = max(MIN_PROMPT, test.depth), test.tokens + 1
        prompts = [numbered_text(next(self.numbers), prompt_tokens) for _ in range(test.batch)]
        with ThreadPoolExecutor(test.batch) as pool:
            return list(pool.map(lambda text: self.endpoint.complete(text, max_tokens), prompts))


def _run_test(client: _Client, order: Message, send: Send) -> None:
    test, clock = Test(**order["test"]), Clock()
    client.complete(test)
    send({"warm": True})
    ends = clock.awake() + order["max_seconds"]
    steps: list[float] = []
    counted = slept = tokens = 0
    while counted < order["repetitions"] and (not counted or clock.awake() < ends):
        watch = clock.start()
        completions = client.complete(test)
        _, asleep = watch.stop()
        if asleep > SLEEP_SECONDS and slept < MAX_SLEPT:
            slept += 1
            send({"slept": True})
            continue
        counted += 1
        first = min(completion.seconds[0] for completion in completions)
        if test.kind == "pp":
            seconds = max(completion.seconds[0] for completion in completions)
            tokens = round(mean(done.prompt_tokens or test.tokens for done in completions))
        else:
            seconds = max(completion.seconds[-1] for completion in completions) - first
            tokens = round(mean(completion.tokens - 1 for completion in completions))
            for completion in completions:
                steps += [after - before for before, after in pairwise(completion.seconds)]
        if tokens < 1 or not seconds:
            raise BackendError(
                f"{client.endpoint.host} sends all of its text at once: nothing to time after it",
                hint="check that the server streams its answers",
            )
        send({"seconds": seconds, "joules": None, "slept": False, "first": first})
    unknown = {"peak_memory_bytes": None, "energy_source": None}
    send({"done": True, "steps": steps, "tokens": tokens, **unknown})
