"""Sequences take first tokens from each other, and say what they would say alone."""

import pytest
from support.engines import seen

from edgellm.settings import Sampling

SYSTEM = [5 + n * 7 % 290 for n in range(70)]
HOW = Sampling(max_tokens=6, logprobs=True)


def run(engine):
    """The tokens of all sequences until the engine is idle, by number."""
    found = {}
    while not engine.idle:
        for number, token in engine.step():
            found.setdefault(number, []).append(token)
    return found


def cached(found, number):
    return found[number][-1].stats.cached_tokens


@pytest.mark.parametrize("kind", ["resident", "int8", "int8 paged", "sliding"])
def test_completions_of_one_prompt_compute_it_once(models, kind):
    load, answer = models
    llm = load(kind)
    llm.prefix_cache.clear()
    how = Sampling(max_tokens=6, temperature=1.2, seed=2**64 - 2, logprobs=True)
    seeds = [2**64 - 2, 2**64 - 1, 0, 1]
    with llm.engine() as engine:
        assert engine.submit([9], max_tokens=1) == 1
        first = engine.submit(SYSTEM, how, n=4)
        assert (first, engine.submit([9], max_tokens=1)) == (2, 6)
        found = run(engine)
        stats = engine.stats
    for place, seed in enumerate(seeds):
        alone = Sampling(max_tokens=6, temperature=1.2, seed=seed, logprobs=True)
        assert seen(found[first + place]) == answer(kind, SYSTEM, alone)
    assert [cached(found, first + place) for place in range(4)] == [0, 69, 69, 69]
    assert stats.prompt_tokens == 1 + 70 + 3 + 1
    assert stats.cached_tokens == 3 * 69


@pytest.mark.parametrize("kind", ["int8", "paged", "window"])
def test_a_common_beginning_is_computed_once_and_kept(models, kind):
    load, answer = models
    llm = load(kind)
    llm.prefix_cache.clear()
    prompts = [[*SYSTEM, *range(20 + n, 24 + 2 * n)] for n in range(3)]
    with llm.engine() as engine:
        numbers = [engine.submit(prompt, HOW) for prompt in prompts]
        found = run(engine)
        assert [cached(found, number) for number in numbers] == [0, 70, 70]
        # the next turn of a conversation: what steps have computed is computed again as a prompt
        answered = [token.id for token in found[numbers[1]] if token.id is not None]
        following = [*prompts[1], *answered, 33, 34]
        number = engine.submit(following, HOW)
        found |= run(engine)
        if kind == "int8":
            assert cached(found, number) == len(prompts[1])
        kv_bytes = engine.kv_bytes
        assert kv_bytes.in_use == 0
        assert 0 <= kv_bytes.kept <= kv_bytes.budget == llm.plan.kv_budget
    for place, prompt in zip([*numbers, number], [*prompts, following], strict=True):
        assert seen(found[place]) == answer(kind, prompt, HOW)


def test_short_prompts_share_what_is_computed_the_same_way(models):
    load, answer = models
    llm = load("int8")
    llm.prefix_cache.clear()
    with llm.engine() as engine:
        numbers = [engine.submit(SYSTEM[:n], HOW) for n in (40, 12, 12, 14)]
        found = run(engine)
    for number, n in zip(numbers, (40, 12, 12, 14), strict=True):
        assert seen(found[number]) == answer("int8", SYSTEM[:n], HOW)
    assert [cached(found, number) for number in numbers] == [0, 0, 11, 12]


def test_an_engine_takes_what_a_stream_has_computed_as_a_prompt(models):
    load, answer = models
    llm = load("int8")
    longer = [*SYSTEM, *range(20, 30)]
    expected = answer("int8", longer, HOW)
    llm.prefix_cache.clear()
    llm.generate(SYSTEM, HOW)
    with llm.engine() as engine:
        number = engine.submit(longer, HOW)
        found = run(engine)
    assert seen(found[number]) == expected
    assert cached(found, number) == len(SYSTEM)


def test_who_waited_for_a_sequence_that_is_cancelled_goes_on_without_it(models):
    load, answer = models
    llm = load("resident")
    llm.prefix_cache.clear()
    with llm.engine() as engine:
        first = engine.submit(SYSTEM, HOW)
        engine.step()
        second, third = engine.submit(SYSTEM, HOW, n=2), 3
        engine.cancel(first)
        found = run(engine)
    assert found[first][-1].finish_reason == "cancelled"
    assert seen(found[second]) == seen(found[third]) == answer("resident", SYSTEM, HOW)
    # a chunk of 32 was computed when it was cancelled
    assert (cached(found, second), cached(found, third)) == (32, 69)


def test_kept_sequences_make_room_for_those_that_run(models):
    load, answer = models
    llm = load("paged")
    llm.prefix_cache.clear()
    prompts = [[5 + (n + i) * (n + 3) % 290 for i in range(40)] for n in range(6)]
    with llm.engine() as engine:
        for prompt in prompts:
            number = engine.submit(prompt, HOW)
            engine.step()
            kv_bytes = engine.kv_bytes
            assert kv_bytes.in_use > 0
            assert kv_bytes.in_use + kv_bytes.kept <= kv_bytes.budget
            assert llm.prefix_cache.running_bytes == kv_bytes.in_use
            assert seen(run(engine)[number])[-1] == answer("paged", prompt, HOW)[-1]
            assert (engine.kv_bytes.in_use, llm.prefix_cache.running_bytes) == (0, 0)
