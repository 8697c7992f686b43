"""The Python door from many threads: nothing waits for ever, nothing is left behind."""

import gc
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest
from support import tiny
from support.counting import load_settings, paged_settings

import edgellm
from edgellm.errors import ClosedError, EdgeLLMError, ReadError

PROMPT = [tiny.BEGIN, *range(40, 60)]


def in_thread(function, *arguments):
    """What a function returns, or raises, in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result(timeout=30)


@pytest.fixture
def llm(open_llm):
    return open_llm("llama-2", seed=1)


@pytest.fixture
def expected(llm):
    return [token.id for token in llm.generate(PROMPT, max_tokens=30).tokens]


@pytest.fixture
def open_either(tiny_folder):
    """A function that loads the same model, wholly or with its layers streamed."""
    folder = tiny_folder("llama-2", seed=1)
    with ExitStack() as opened:

        def load(*, paged):
            llm = opened.enter_context(edgellm.load(folder, **load_settings(folder, paged=paged)))
            assert llm.plan.resident != paged
            return llm

        yield load


def test_loaded_here_streamed_there_closed_elsewhere(tiny_folder, expected):
    llm = in_thread(edgellm.load, tiny_folder("llama-2", seed=1))
    for _ in range(3):
        assert [token.id for token in in_thread(llm.generate, PROMPT).tokens[:30]] == expected
    assert [token.id for token in llm.generate(PROMPT, max_tokens=30).tokens] == expected
    in_thread(llm.close)
    with pytest.raises(ClosedError):
        llm.generate(PROMPT)


@pytest.mark.parametrize("paged", [False, True])
def test_two_threads_ask_for_the_tokens_of_one_stream_in_turns(paged, open_either, expected):
    llm = open_either(paged=paged)
    stream = llm.stream(PROMPT, max_tokens=30, repetition_penalty=1.0)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        ids = [(one, other)[number % 2].submit(next, stream).result().id for number in range(30)]
    assert ids == expected
    assert next(stream, None) is None


def test_of_two_threads_that_stream_one_waits(llm, expected):
    times = {}

    def run(name):
        ids = []
        for token in llm.stream(PROMPT, max_tokens=30):
            ids.append(token.id)
            times.setdefault(name, []).append(time.perf_counter())
        return ids

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [expected] * 4
    spans = sorted((found[0], found[-1]) for found in times.values())
    assert all(before[1] < after[0] for before, after in pairwise(spans))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.3},
        {"stop": "never said", "logprobs": True},
    ],
)
@pytest.mark.parametrize("paged", [False, True])
def test_two_streams_are_read_in_turns_in_one_thread(settings, paged, open_either):
    """Each gives way to the other at once, and goes on as if it were alone."""
    llm = open_either(paged=paged)
    prompts = [PROMPT, PROMPT[3:] + PROMPT]
    alone = [llm.generate(prompt, max_tokens=12, **settings) for prompt in prompts]
    streams = [llm.stream(prompt, max_tokens=12, **settings) for prompt in prompts]
    for step in range(12):
        for stream, expected in zip(streams, alone, strict=True):
            token, wanted = next(stream), expected.tokens[step]
            assert (token.id, token.text, token.logprob) == (wanted.id, wanted.text, wanted.logprob)
    for stream, expected in zip(streams, alone, strict=True):
        found = stream.completion
        assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason)
        # what was computed before it gave way was still there
        assert found.stats.forwards == expected.stats.forwards
        assert found.stats.decode_passes == expected.stats.decode_passes


def test_a_stream_that_another_thread_goes_on_with_is_waited_for(llm, expected):
    stream = llm.stream(PROMPT, max_tokens=30)
    next(stream)
    with ThreadPoolExecutor(1) as other:
        other.submit(next, stream).result()
        rest = other.submit(list, stream)
        assert [token.id for token in llm.stream(PROMPT, max_tokens=30)] == expected
        assert [token.id for token in rest.result()] == expected[2:]


def test_a_stream_that_is_dropped_half_way_or_never_begun_holds_nothing(llm, expected):
    for taken in (0, 1, 5):
        stream = llm.stream(PROMPT, max_tokens=30)
        for _ in range(taken):
            next(stream)
        del stream
        gc.collect()
        assert [token.id for token in llm.generate(PROMPT, max_tokens=30).tokens] == expected
    stream = llm.stream(PROMPT, max_tokens=30)
    next(stream)
    in_thread(stream.close)
    assert llm.generate(PROMPT, max_tokens=1).stats.completion_tokens == 1


def test_what_a_dropped_stream_computed_is_still_cached(llm, expected):
    stream = llm.stream(PROMPT, max_tokens=30)
    ids = [next(stream).id for _ in range(6)]
    stream.close()
    answer = llm.generate(PROMPT + ids, max_tokens=4, reuse_cache=True)
    assert answer.stats.cached_tokens >= len(PROMPT) + 5
    assert [token.id for token in answer.tokens] == expected[6:10]


def test_cancelled_from_another_thread(llm, expected):
    stream = llm.stream(PROMPT, max_tokens=200)
    ids = [next(stream).id for _ in range(3)]
    in_thread(llm.cancel)
    rest = list(stream)
    assert rest[-1].finish_reason == "cancelled"
    assert rest[-1].stats.completion_tokens == 3 + len(rest) - 1
    assert [*ids, *(token.id for token in rest[:-1])] == expected[: 3 + len(rest) - 1]
    assert len(rest) <= 2
    assert [token.id for token in llm.stream(PROMPT, max_tokens=30)] == expected


def test_cancelled_before_its_first_token_it_ends(llm, expected):
    stream, other = (llm.stream(PROMPT, max_tokens=30) for _ in range(2))
    stream.cancel()
    (last,) = stream
    assert (last.id, last.text, last.finish_reason) == (None, "", "cancelled")
    assert [token.id for token in other] == expected


def test_a_prompt_may_be_any_sequence_of_whole_numbers(llm, expected):
    for prompt in (tuple(PROMPT), np.array(PROMPT), iter(PROMPT)):
        assert [token.id for token in llm.generate(prompt, max_tokens=30).tokens] == expected


def test_cancelling_when_nothing_runs_changes_nothing(llm, expected):
    llm.cancel()
    assert [token.id for token in llm.stream(PROMPT, max_tokens=30)] == expected


def test_closed_while_another_thread_streams(llm):
    begun, found = threading.Event(), []

    def run():
        try:
            while True:
                for _ in llm.stream(PROMPT, max_tokens=230):
                    begun.set()
        except ClosedError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    llm.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(found) == 1


def test_closing_does_not_wait_for_whoever_reads(llm):
    stream = llm.stream(PROMPT, max_tokens=30)
    in_thread(next, stream)  # by a thread that is gone
    llm.close()
    with pytest.raises(ClosedError):
        next(stream)
    assert next(stream, None) is None


def test_closed_in_the_middle_of_ones_own_stream(llm):
    stream = llm.stream(PROMPT, max_tokens=30)
    next(stream)
    llm.close()
    with pytest.raises(ClosedError):
        next(stream)


def test_closed_from_within_the_arithmetic(llm):
    stream = llm.stream(PROMPT, max_tokens=30, on_prefill=lambda _: llm.close())
    with pytest.raises(ClosedError):
        list(stream)
    with pytest.raises(ClosedError):
        llm.stream(PROMPT)


def test_those_who_wait_learn_that_it_was_closed(llm):
    with llm.batch() as batch, ThreadPoolExecutor(2) as pool:
        batch.submit(PROMPT)
        batch.step()
        waiting = [pool.submit(list, llm.stream(PROMPT, max_tokens=5)) for _ in range(2)]
        time.sleep(0.05)
        assert not any(future.done() for future in waiting)
        llm.close()
        for future in waiting:
            with pytest.raises(ClosedError):
                future.result(timeout=20)


def test_one_that_waits_is_cancelled_closed_or_runs_out_of_time(llm):
    with llm.batch() as batch, ThreadPoolExecutor(3) as pool:
        batch.submit(PROMPT)
        batch.step()
        streams = [llm.stream(PROMPT, timeout=timeout) for timeout in (None, None, 0.1)]
        waiting = [pool.submit(list, stream) for stream in streams]
        time.sleep(0.05)
        streams[0].cancel()
        streams[1].close()
        ended = [future.result(timeout=20) for future in waiting]
        assert [token.finish_reason for tokens in ended for token in tokens] == [
            "cancelled",
            "timeout",
        ]
        assert streams[1].completion.finish_reason == "cancelled"
        assert batch.step()


def test_closed_twice_and_by_many_at_once(open_either):
    for number in range(6):
        llm = open_either(paged=number % 2 == 0)
        stream = llm.stream(PROMPT, max_tokens=30)
        next(stream)
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(llm.close) for _ in range(4)]:
                future.result(timeout=20)
        llm.close()
        with pytest.raises(ClosedError):
            next(stream)


@pytest.mark.parametrize("failure", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_exception_from_outside_leaves_the_model_usable(failure, llm, expected):
    def fail(_):
        raise failure

    with pytest.raises(type(failure)):
        list(llm.stream(PROMPT, on_prefill=fail))
    assert [token.id for token in llm.stream(PROMPT, max_tokens=30)] == expected


def test_a_token_asked_for_within_the_streams_own_step_is_an_error_that_is_seen(open_llm):
    llm = open_llm("llama-2")
    stream = llm.stream(PROMPT, max_tokens=2, on_prefill=lambda _: next(stream))
    with pytest.raises(EdgeLLMError, match="computing a step"):
        next(stream)
    assert stream.completion.finish_reason == "error"


def test_stop_texts_and_end_tokens_end_the_answer(open_llm, llm, expected):
    text = llm.tokenizer.decode(expected)
    for stop in (text[10:13], text[4:30], text[:1]):
        answer = llm.generate(PROMPT, max_tokens=30, stop=stop)
        assert (answer.finish_reason, answer.text) == ("stop", text[: text.index(stop)])
    answer = llm.generate(PROMPT, max_tokens=30, stop=["never said"])
    assert (answer.finish_reason, answer.text) == ("length", text)
    place = next(number for number in range(3, 30) if expected[number] not in expected[:number])
    by_config = open_llm("llama-2", seed=1, config={"eos_token_id": [expected[place], 7]})
    by_generation_config = open_llm(
        "llama-2", seed=1, generation_config={"eos_token_id": expected[place]}
    )
    for model in (by_config, by_generation_config):
        answer = model.generate(PROMPT, max_tokens=30)
        assert (answer.finish_reason, answer.stats.completion_tokens) == ("stop", place + 1)
        assert answer.text == llm.tokenizer.decode(expected[:place])


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.01, "seed": 1}, {"beams": 2}])
def test_a_stop_text_that_is_a_special_token_ends_the_answer(settings, open_llm, llm, tmp_path):
    plain = [token.id for token in llm.generate(PROMPT, max_tokens=12, **settings).tokens]
    place = next(number for number in range(3, 12) if plain[number] not in plain[:number])
    stop = llm.tokenizer.id_to_token(plain[place])
    folder = shutil.copytree(llm.path, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["additional_special_tokens"] = [stop]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    changed = open_llm(folder)
    texts = [changed.generate(PROMPT, max_tokens=12, stop=stop, **settings)]
    if "beams" not in settings:
        texts += changed.generate_batch([PROMPT] * 2, max_tokens=12, stop=stop, **settings)
    for answer in texts:
        assert answer.finish_reason == "stop"
        assert answer.text == llm.tokenizer.decode(plain[:place])


def test_sampled_texts_repeat_with_their_seed(llm):
    texts = {
        seed: llm.generate(PROMPT, max_tokens=20, temperature=1.0, seed=seed).text
        for seed in range(4)
    }
    assert len(set(texts.values())) == 4
    for seed, text in texts.items():
        assert llm.generate(PROMPT, max_tokens=20, temperature=1.0, seed=seed).text == text


def test_a_shard_that_is_cut_short_while_it_is_streamed(tmp_path):
    folder = tiny.write_model(tmp_path / "cut", tiny.CONFIGS["llama-2"], seed=1)
    with edgellm.load(folder, **paged_settings(folder)) as llm:
        llm.generate(PROMPT, max_tokens=5)
        os.truncate(folder / "model.safetensors", 4096)
        for _ in range(2):
            with pytest.raises(ReadError, match=r"model\.safetensors"):
                llm.generate(PROMPT, max_tokens=30)


def test_two_models_at_once(tiny_folder, open_llm, llm, expected):
    folder = tiny_folder("qwen3")
    other = open_llm(folder, load=paged_settings(folder))
    alone = [token.id for token in other.generate(PROMPT, max_tokens=30).tokens]
    both = list(
        zip(llm.stream(PROMPT, max_tokens=30), other.stream(PROMPT, max_tokens=30), strict=True)
    )
    assert [token.id for token, _ in both] == expected
    assert [token.id for _, token in both] == alone
