"""Measure tokens per second of several texts at once, with processes in place of machines.

    python -m edgellm.bench.studies.clusters.streams MODEL [--memory 500MB] [--streams 1,2,4,8]

The texts run in one process and on two, in turns, with one thread each. On two they run all
together, and as the engine chooses: in groups that take turns where that is measured to be faster.
Reported are tokens per second after the prompts and the engine's own tries, medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

from edgellm.bench.studies.clusters.two_processes import PROMPT, other_process
from edgellm.console.terminal import write_line
from edgellm.engine.turns import TRIED_ROUNDS
from edgellm.llm import LLM
from edgellm.models.layers import StagedLayers
from edgellm.open_llm import load

TRIED_TOKENS = 2 * TRIED_ROUNDS + 2
"""Tokens of each text that are not counted: both ways are tried, and a group may be on its way."""


def tokens_per_second(llm: LLM, streams: int, tokens: int) -> float:
    """Return how many tokens a second come of so many texts together."""
    with llm.engine() as engine:
        for place in range(streams):
            engine.submit([*PROMPT, 3 + place], max_tokens=TRIED_TOKENS + tokens)
        while engine.stats.completion_tokens < streams * TRIED_TOKENS:
            engine.step()
        begun, before = time.perf_counter(), engine.stats.completion_tokens
        while engine.running == streams:
            engine.step()
        return (engine.stats.completion_tokens - before) / (time.perf_counter() - begun)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--memory", default="500MB", help="of each process")
    parser.add_argument("--streams", default="1,2,4,8", help="texts at once")
    parser.add_argument("--tokens", type=int, default=40, help="of each text")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    context = len(PROMPT) + asked.tokens + TRIED_TOKENS + 2
    settings = {"memory": asked.memory, "threads": 1, "context": context, "speculate": "off"}
    with (
        other_process(asked.model, asked.memory) as (hosts, _),
        load(asked.model, **settings) as one,
        load(asked.model, machines=hosts, split="windows", **settings) as two,
    ):
        layers = two.model.layers
        assert isinstance(layers, StagedLayers), "of the kind that can take turns"
        stages = layers.stages
        write_line(f"two processes: {two.plan!r}; texts can take turns: {stages > 1}")
        for llm in (one, two):
            llm.eos_token_ids = frozenset()
        for streams in map(int, asked.streams.split(",")):
            rates: dict[str, list[float]] = {"one process": [], "together": [], "chosen": []}
            for _ in range(asked.rounds):
                rates["one process"].append(tokens_per_second(one, streams, asked.tokens))
                layers.stages = 1
                rates["together"].append(tokens_per_second(two, streams, asked.tokens))
                layers.stages = stages
                rates["chosen"].append(tokens_per_second(two, streams, asked.tokens))
            told = "  ".join(f"{way} {statistics.median(rate):6.1f}" for way, rate in rates.items())
            write_line(f"{streams:>3} texts, tokens/s:  {told}")


if __name__ == "__main__":
    main()
