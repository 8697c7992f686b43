"""Caches that grow, and sequences that give way to them, change no token."""

import random

import pytest
from support.engines import seen
from support.traffic import Traffic

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.settings import LoadSettings, Sampling

LENGTHS = (3, 40, 12, 70, 9)
PROMPTS = [
    [5 + (n * 7 + i * (n + 3)) % 290 for i in range(length)] for n, length in enumerate(LENGTHS)
]
HOW = Sampling(max_tokens=80, temperature=0.9, seed=4, logprobs=True)
CONTEXT = 160


@pytest.fixture(scope="module", params=["int8", "sliding"])
def llm(request, tiny_folder, tmp_path_factory):
    """A model whose budget has room for the KV caches of one sequence that fills the context."""
    load = {"context": CONTEXT, "prefill_chunk": 32, "speculate": "off"}
    if request.param == "int8":
        folder = tmp_path_factory.mktemp("int8") / "model"
        convert(tiny_folder("llama-3.1", seed=1), folder, bits=4)
    else:
        folder = tiny_folder("llama-2", seed=1)
        load |= {"activations": "float", "context_window": 90}
    plan = plan_for(read_checkpoint(folder), LoadSettings(memory="500MB", **load))
    with edgellm.load(folder, memory=plan.total_bytes, **load) as opened:
        assert opened.plan.resident
        opened.eos_token_ids = frozenset()
        yield opened


def test_sequences_that_give_way_go_on_with_the_same_tokens(llm):
    with llm.engine() as engine:
        places = {engine.submit(prompt, HOW): place for place, prompt in enumerate(PROMPTS)}
        found = [[] for _ in PROMPTS]
        while not engine.idle:
            for number, token in engine.step():
                found[places[number]].append(token)
            kv_bytes = engine.kv_bytes
            assert llm.prefix_cache.running_bytes <= kv_bytes.in_use <= kv_bytes.budget
        assert engine.stats.preemptions > 0
        assert engine.stats.most_at_once > 1
        assert engine.stats.completion_tokens == len(PROMPTS) * HOW.max_tokens
    for prompt, tokens in zip(PROMPTS, found, strict=True):
        alone = llm.generate(prompt, HOW)
        assert seen(tokens) == seen(alone.tokens)
        assert tokens[-1].stats.prompt_tokens == len(prompt)


def test_sequences_that_come_and_go_while_memory_is_short(llm):
    draw = random.Random(5)
    llm.prefix_cache.clear()
    with llm.engine(max_queue=6, at_once=4) as engine:
        traffic = Traffic(engine, draw, max_tokens=[4, 70, None])
        while len(traffic.prompts) < 8 or not engine.idle:
            if len(traffic.prompts) < 8:
                traffic.submit()
            if draw.random() < 0.02:
                traffic.cancel()
            traffic.take(engine.step())
            traffic.check_memory(llm.prefix_cache)

        def alone(prompt, settings):
            return [token.id for token in llm.generate(prompt, **settings).tokens]

        traffic.check_end(llm.prefix_cache, alone)
        assert engine.stats.preemptions > 0
