"""A stream keeps its pace while a long prompt joins, and many run in little memory."""

import random
import time

import numpy as np
import pytest

import edgellm
from edgellm.settings import Sampling

pytestmark = pytest.mark.slow

CONTEXT = 1024
ENDLESS = Sampling(max_tokens=None)


@pytest.fixture(scope="module")
def llm():
    with edgellm.load("stories", context=CONTEXT, speculate="off") as opened:
        opened.eos_token_ids = frozenset()
        yield opened


def prompt_of(length, seed):
    draw = random.Random(seed)
    return [draw.randrange(3, 4000) for _ in range(length)]


def gaps(llm, *, joins):
    """The processor time between a stream's tokens, until one that joins has its first."""
    llm.prefix_cache.clear()
    with llm.engine() as engine:
        stream = engine.submit(prompt_of(10, 1), ENDLESS)
        while engine.stats.completion_tokens < 40:
            engine.step()
        times = [time.process_time()]
        joined = None
        if joins:
            joined = engine.submit(prompt_of(CONTEXT - 8, 2), max_tokens=2)
        while True:
            told = {number for number, _ in engine.step()}
            times += [time.process_time()] * (stream in told)
            if joined in told or (joined is None and len(times) == 100):
                return np.diff(times)


def test_a_stream_keeps_its_pace_while_a_full_context_joins(llm):
    gaps(llm, joins=True)  # kernels are compiled, and both paces known
    ratios = []
    for _ in range(5):
        alone, joined = gaps(llm, joins=False), gaps(llm, joins=True)
        assert len(joined) > 8, "it went through in parts"
        ratios.append(np.percentile(joined, 99) / np.percentile(alone, 99))
    assert np.median(ratios) <= 3, ratios


def test_answers_without_a_limit_run_side_by_side(llm):
    plan = llm.plan
    memory = plan.total_bytes + plan.cache_bytes
    with edgellm.load("stories", context=CONTEXT, memory=memory, speculate="off") as small:
        small.eos_token_ids = frozenset()
        prompts = [prompt_of(60, seed) for seed in range(12)]
        with small.engine() as engine:
            numbers = [engine.submit(prompt, max_tokens=None) for prompt in prompts]
            contexts = small.plan.kv_budget // small.caches.nbytes(capacity=CONTEXT)
            assert engine.running >= 3 * contexts > 0
            found = {number: [] for number in numbers}
            for _ in range(300):
                for number, token in engine.step():
                    found[number].append(token.id)
            assert engine.stats.preemptions > 0
        for number, prompt in zip(numbers[:2], prompts, strict=False):
            assert len(found[number]) > 250, "those that came first wait for nobody"
            alone = llm.generate(prompt, max_tokens=len(found[number]))
            assert found[number] == [token.id for token in alone.tokens]
