"""Sequences side by side give what they would give alone, whoever joins and leaves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny
from support.counting import paged_settings
from support.engines import KINDS, open_context, seen

import edgellm
from edgellm.engine.engine import Engine
from edgellm.errors import (
    ConfigError,
    ContextError,
    MemoryBudgetError,
)
from edgellm.runtime.loader import caches_bytes
from edgellm.settings import Sampling

PROMPT = [tiny.BEGIN, *range(20, 60)]


samplings = st.builds(
    Sampling,
    max_tokens=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 5]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 3),
    stop=st.sampled_from([(), ("e",), (" the", "o")]),
    logprobs=st.booleans(),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(data=st.data())
def test_whoever_joins_and_leaves_each_completion_is_as_alone(models, kind, data):
    load, answer = models
    llm = load(kind)
    lengths = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 64, 70]))
    coming = data.draw(
        st.lists(
            st.tuples(st.integers(0, 6), lengths, samplings, st.integers(0, 40)),
            min_size=1,
            max_size=9,
        )
    )
    asked = [
        (after, [(7 * n + 3 * i) % 300 + 5 for i in range(length)], how, gone)
        for n, (after, length, how, gone) in enumerate(coming)
    ]
    found, numbers = [[] for _ in asked], {}
    expected = [answer(kind, prompt, how) for _, prompt, how, _ in asked]
    with llm.batch() as batch:
        steps = 0
        while steps < 7 or not batch.idle:
            for place, (after, prompt, how, gone) in enumerate(asked):
                if after == steps:
                    numbers[batch.submit(prompt, how)] = place
                if gone == steps - after and place in numbers.values():
                    batch.cancel(next(number for number, mine in numbers.items() if mine == place))
            for number, token in batch.step():
                found[numbers[number]].append(token)
            steps += 1
        assert batch.stats.sequences == len(asked)
        assert batch.stats.completion_tokens == sum(
            token.id is not None for tokens in found for token in tokens
        )
    for tokens, alone in zip(found, expected, strict=True):
        if tokens[-1].finish_reason == "cancelled":
            assert seen(tokens[:-1]) == alone[: len(tokens) - 1]
        else:
            assert seen(tokens) == alone
        assert tokens[-1].stats.completion_tokens == sum(token.id is not None for token in tokens)


@pytest.mark.parametrize("kind", ["resident", "int8"])
def test_more_sequences_than_rows_that_a_product_takes_at_once(models, kind):
    load, answer = models
    llm = load(kind)
    prompts = [PROMPT[n : n + 3 + n % 5] for n in range(23)]
    how = Sampling(max_tokens=6, logprobs=True)
    expected = [answer(kind, prompt, how) for prompt in prompts]
    assert [seen(done.tokens) for done in llm.generate_batch(prompts, how)] == expected


def test_texts_settings_and_places(open_llm):
    llm = open_llm()
    prompts = ["Once upon a time", "The dog", [5, 6, 7]]
    each = [Sampling(max_tokens=5), Sampling(max_tokens=9), Sampling(temperature=1.0, seed=3)]
    alone = [
        llm.generate(prompt, how, logprobs=True) for prompt, how in zip(prompts, each, strict=True)
    ]
    together = llm.generate_batch(prompts, each, logprobs=True)
    assert [done.text for done in together] == [done.text for done in alone]
    assert [seen(done.tokens) for done in together] == [seen(done.tokens) for done in alone]
    assert {place for place, _ in llm.stream_batch(prompts, max_tokens=2)} == {0, 1, 2}
    assert llm.generate_batch([]) == []
    for bad in ("Once upon a time", b"Once", {"a": 1}, 3, None):
        with pytest.raises(ConfigError):
            llm.generate_batch(bad)
    with pytest.raises(ConfigError, match="2 samplings for 3 prompts"):
        llm.stream_batch(prompts, each[:2])
    with pytest.raises(ConfigError, match="beam"):
        llm.generate_batch(prompts, beams=2)
    with pytest.raises(ConfigError, match="temprature"):
        llm.stream_batch(prompts, temprature=1)
    assert llm.generate(prompts[0], each[0]).text == alone[0].text


def test_eight_prompts_of_any_length_cost_the_passes_of_one(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    with edgellm.load(folder, prefill_chunk=8, **paged_settings(folder, context=200)) as llm:
        llm.eos_token_ids = frozenset()
        one = llm.generate(PROMPT, max_tokens=6).stats
        with llm.batch() as batch:
            for n in range(8):
                batch.submit(PROMPT[: 1 + 5 * n], max_tokens=6)
            answers = []
            while not batch.idle:
                answers += batch.step()
            stats = batch.stats
        assert stats.passes == stats.weight_passes == 6
        assert stats.tokens_per_weight_pass == 8
        assert (stats.sequences, stats.most_at_once) == (8, 8)
        prompts = sum(1 + 5 * n for n in range(8))
        assert stats.prompt_tokens + stats.cached_tokens == prompts
        assert one.weight_passes == 6
        # alone they read eight times as much; how much was read ahead depends on the moment
        assert stats.bytes_read < 2 * one.bytes_read
    for _, token in answers:
        if token.stats is not None:
            assert (token.stats.weight_passes, token.stats.decode_passes) == (6, 5)


def test_running_sequences_go_on_while_a_long_prompt_joins(open_llm):
    llm = open_llm("llama-2", load={"prefill_chunk": 8})
    with llm.batch() as batch:
        first = batch.submit([5, 6], Sampling(max_tokens=30))
        batch.step()
        second = batch.submit(PROMPT, Sampling(max_tokens=3))
        told = []
        while not told or second not in told[-1]:
            told.append({number for number, _ in batch.step()})
    assert len(told) >= 6, "at most a chunk of 8 of its 41 tokens per step"
    assert all(first in numbers for numbers in told)


def test_sequences_wait_for_memory_in_their_order(tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1)
    llm = open_llm(folder, load=paged_settings(folder, context=64))
    alone = llm.generate(PROMPT[:20], max_tokens=10).text
    each = caches_bytes(
        llm.checkpoint, capacity=30, window=None, context=llm.context, kv_bits=llm.plan.kv_bits
    )
    most = llm.plan.kv_budget // each
    with llm.batch() as batch:
        numbers = [batch.submit(PROMPT[:20], Sampling(max_tokens=10)) for _ in range(most + 3)]
        finished, texts = [], dict.fromkeys(numbers, "")
        while not batch.idle:
            for number, token in batch.step():
                texts[number] += token.text
                finished += [number] if token.finish_reason else []
        assert finished == numbers
        assert batch.stats.most_at_once == most >= 2
    assert set(texts.values()) == {alone}


def test_what_cannot_run_leaves_the_others_alone(tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1)
    llm = open_llm(folder, load={"context": 48})
    long = [5] * 49
    answers = llm.generate_batch([PROMPT[:9], long, PROMPT[:5]], max_tokens=7)
    assert [done.finish_reason for done in answers] == ["length", "error", "length"]
    assert isinstance(answers[1].error, ContextError)
    assert (answers[1].text, answers[1].stats.completion_tokens) == ("", 0)
    assert answers[0].text == llm.generate(PROMPT[:9], max_tokens=7).text
    bad = [[], [tiny.VOCABULARY], [1.0, 5.0], [True], b"abc", None, "", long]
    prompts = (prompt for prompt in [*bad, np.array(PROMPT[:9]), list(np.array(PROMPT[:5]))])
    done = llm.generate_batch(prompts, max_tokens=7)
    assert {type(one.error) for one in done[:7]} <= {ConfigError, type(None)}
    assert [one.finish_reason for one in done[:6]] == ["error"] * 6
    assert [one.text for one in done[8:]] == [answers[0].text, answers[2].text]
    with llm.batch() as batch:
        for prompt in (*bad[:6], long):
            with pytest.raises((ConfigError, ContextError)):
                batch.submit(prompt)
        assert batch.idle


def test_prompts_are_taken_from_an_iterator_as_they_may_run(open_llm):
    llm = open_llm("llama-2")
    taken = []

    def prompts():
        for n in range(1000):
            taken.append(n)
            yield [5 + n] * 3

    tokens = llm.stream_batch(prompts(), max_tokens=4, at_once=2)
    ended = [place for place, token in (next(tokens) for _ in range(8)) if token.finish_reason]
    tokens.close()
    assert ended == [0, 1]
    assert taken == [0, 1, 2], "two ran, and one was the next"
    assert llm.generate_batch(iter([PROMPT[:3]]), max_tokens=1)[0].finish_reason == "length"


def test_a_sequence_that_no_budget_has_memory_for_is_refused(tiny_folder):
    with open_context(tiny_folder("llama-2", seed=1)) as context:
        plan = context.plan
        plan = replace(plan, budget=plan.budget - plan.kv_budget + 1000)
        with Engine(replace(context, plan=plan)) as engine:
            with pytest.raises(MemoryBudgetError, match=r"room for 1\.00 KB"):
                engine.submit(PROMPT)
            assert engine.idle


def test_a_full_context_ends_a_sequence(open_llm):
    llm = open_llm("llama-2", load={"context": 48})
    llm.eos_token_ids = frozenset()
    for most in (100, None):
        done = llm.generate_batch([PROMPT, PROMPT[:4], [9] * 48], max_tokens=most)
        assert [one.stats.completion_tokens for one in done] == [7, 44, 1]
        assert {one.finish_reason for one in done} == {"length"}
    assert llm.generate(PROMPT, max_tokens=None).stats.completion_tokens == 7
