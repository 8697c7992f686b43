"""The loop: what it computes, how often, and where it stops."""

import math
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.counting import open_counted

PROMPT = [tiny.BEGIN, *range(20, 60)]


@pytest.mark.parametrize("async_compute", [True, False])
@pytest.mark.parametrize(
    ("prompt", "chunk", "new"),
    [(1, 8, 1), (8, 8, 5), (9, 8, 6), (40, 8, 1), (41, 16, 20), (30, 512, 12)],
)
def test_no_forward_is_made_beyond_those_needed(prompt, chunk, new, async_compute, tiny_folder):
    llm, layers = open_counted(
        tiny_folder("llama-2", seed=1), async_compute=async_compute, prefill_chunk=chunk
    )
    with llm:
        answer = llm.generate(PROMPT[:prompt], max_tokens=new)
    assert answer.finish_reason == "length"
    needed = math.ceil(prompt / chunk) + new - 1
    assert len(layers.lengths) == answer.stats.forwards == needed
    assert sum(layers.lengths) == prompt + new - 1


def test_a_text_that_ends_early_costs_no_forward_more_where_steps_are_not_deferred(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    with open_counted(folder)[0] as llm:
        whole = [token.id for token in llm.generate(PROMPT, max_tokens=20).tokens]
    for async_compute, more in ((False, 0), (True, 1)):
        llm, layers = open_counted(folder, async_compute=async_compute, prefill_chunk=16)
        with llm:
            llm.eos_token_ids = frozenset({whole[9]})
            answer = llm.generate(PROMPT, max_tokens=20)
        ended = whole.index(whole[9]) + 1
        assert (answer.finish_reason, answer.stats.completion_tokens) == ("stop", ended)
        assert len(layers.lengths) == math.ceil(len(PROMPT) / 16) + ended - 1 + more


def test_one_answer_after_another_is_as_if_it_were_the_first(open_llm):
    llm, other = open_llm("mistral-window"), open_llm("mistral-window")
    expected = other.generate(PROMPT, max_tokens=30).text
    llm.generate(range(30, 100), max_tokens=50)
    llm.generate([7], max_tokens=3, temperature=1.0)
    assert llm.generate(PROMPT, max_tokens=30).text == expected


def test_log_probabilities_are_those_of_the_logits(open_llm):
    # a prompt's tokens are rounded otherwise than those that come one by one
    llm = open_llm(load={"activations": "float", "kv_bits": 32})
    vocabulary = llm.config.vocab_size
    for settings in (
        {},
        {"temperature": 1.0, "seed": 1, "top_k": 5},
        {"beams": 3},
        {"repetition_penalty": 1.5},
    ):
        answer = llm.generate(PROMPT, max_tokens=12, top_logprobs=5, **settings)
        ids = list(answer.ids)
        logits = np.array(llm.logits(PROMPT + ids[:-1]), dtype=np.float64)[len(PROMPT) - 1 :]
        expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        given = [token.logprob for token in answer.tokens]
        np.testing.assert_allclose(given, expected[np.arange(len(ids)), ids], atol=1e-4)
        order = np.argsort(-expected, axis=-1)
        for token, row, likeliest in zip(answer.tokens, expected, order, strict=True):
            assert [one.id for one in token.top_logprobs] == likeliest[:5].tolist()
            top = [one.logprob for one in token.top_logprobs]
            np.testing.assert_allclose(top, row[likeliest[:5]], atol=1e-4)
        if "beams" not in settings:
            (other,) = llm.generate_batch([PROMPT], max_tokens=12, top_logprobs=5, **settings)
            assert [(one.id, one.top_logprobs) for one in other.tokens] == [
                (one.id, one.top_logprobs) for one in answer.tokens
            ]
    everything = llm.generate(PROMPT, max_tokens=1, top_logprobs=vocabulary + 1).tokens[0]
    assert len(everything.top_logprobs) == vocabulary
    texts = {one.id: one.text for one in everything.top_logprobs}
    assert texts[tiny.END] == "<|end|>"
    assert texts[ids[0]] == llm.tokenizer.decode([tiny.BEGIN, ids[0]])
    assert all(token.logprob is None for token in llm.generate(PROMPT, max_tokens=3).tokens)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_full_context_ends_the_answer(beams, open_llm):
    llm = open_llm("llama-2", load={"context": 48})
    answer = llm.generate(PROMPT, max_tokens=100, beams=beams)
    assert answer.finish_reason == "length"
    assert answer.stats.prompt_tokens + answer.stats.completion_tokens == llm.context == 48
    assert len(llm.generate([9] * 48, max_tokens=5).tokens) == 1


def test_what_two_prompts_have_in_common_is_computed_once(tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-3.2"))
    with llm:
        other = [*PROMPT[:30], 7, 8, 9]
        fresh = llm.generate(other, max_tokens=8).text
        llm.generate(PROMPT, max_tokens=8)
        layers.lengths.clear()
        answer = llm.generate(other, max_tokens=8, reuse_cache=True)
        assert answer.stats.cached_tokens == 30
        assert sum(layers.lengths) == 3 + 7
        assert answer.text == fresh
        same = llm.generate(other, max_tokens=8, reuse_cache=True)
        assert (same.stats.cached_tokens, same.text) == (len(other) - 1, fresh)


def test_a_window_that_has_turned_begins_anew_where_tokens_are_gone(open_llm):
    llm = open_llm("llama-2", load={"context_window": 12})
    fresh = llm.generate(PROMPT[:20], max_tokens=8).text
    llm.generate([*PROMPT, *PROMPT], max_tokens=8)  # more than the storage of a window has room for
    answer = llm.generate(PROMPT[:20], max_tokens=8, reuse_cache=True)
    assert (answer.stats.cached_tokens, answer.text) == (0, fresh)


def test_a_window_bounds_memory_however_long_the_text_grows(open_llm):
    # in float32 the seed's text does not end early
    load = {"context_window": 16, "kv_bits": 32}
    llm = open_llm("llama-2", config={"max_position_embeddings": 2048}, load=load)

    def peak(new):
        mx.reset_peak_memory()
        answer = llm.generate(PROMPT, max_tokens=new, temperature=1.0, seed=1)
        assert answer.finish_reason == "length"
        return mx.get_peak_memory()

    peak(90)  # what is kept of the one before is there beside the next
    short = peak(90)
    assert peak(400) <= short + 4096


def test_nothing_stays_unevaluated_after_a_token(open_llm):
    """What is still lazy could not be evaluated by another thread; here each token has its own."""
    for kind, settings in (
        ("mistral-window", {"repetition_penalty": 1.2}),
        ("llama-2", {"temperature": 1.0, "seed": 4}),
    ):
        llm = open_llm(kind)
        expected = [
            token.id
            for token in llm.generate(PROMPT, max_tokens=9, logprobs=True, **settings).tokens
        ]
        stream = llm.stream(PROMPT, max_tokens=9, logprobs=True, **settings)
        ids = []
        for _ in range(9):
            with ThreadPoolExecutor(1) as thread:
                ids.append(thread.submit(next, stream).result().id)
        assert ids == expected
