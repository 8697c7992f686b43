"""An engine that is interrupted: cancelled, closed, or let down by its disk."""

import gc
import threading
import time

import pytest
from support import tiny
from support.counting import open_counted, paged_settings
from support.readers import FailingReader

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ClosedError, ConfigError, EdgeLLMError, ReadError
from edgellm.open_llm import open_llm as open_checkpoint
from edgellm.settings import LoadSettings, Sampling
from edgellm.tokenizer import Tokenizer

PROMPT = [tiny.BEGIN, *range(20, 60)]


def test_cancelled_from_another_thread(open_llm):
    llm = open_llm("llama-2")
    tokens = []
    for place, token in llm.stream_batch([PROMPT[:5], PROMPT[:7]], max_tokens=200):
        tokens.append((place, token))
        if len(tokens) == 10:
            thread = threading.Thread(target=llm.cancel)
            thread.start()
            thread.join()
    last = dict(tokens)
    assert [last[place].finish_reason for place in (0, 1)] == ["cancelled"] * 2
    assert len(tokens) == 12
    assert llm.generate_batch([PROMPT[:5]], max_tokens=3)[0].finish_reason == "length"


def test_cancel_leaves_a_pass_between_two_layers(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    llm, layers = open_counted(folder, **paged_settings(folder, context=200))
    with llm:
        expected = llm.generate(PROMPT, max_tokens=3).text
        asked = []

        def cancel_before_the_second_layer():
            asked.append(None)
            if len(asked) == 2:
                llm.cancel()

        layers.before_layer = cancel_before_the_second_layer
        assert llm.generate(PROMPT, max_tokens=3).finish_reason == "cancelled"
        assert len(asked) == 2 <= llm.config.num_hidden_layers
        assert llm.generate(PROMPT, max_tokens=3, reuse_cache=True).text == expected
        asked.clear()
        together = llm.generate_batch([PROMPT, PROMPT[:5]], max_tokens=3)
        assert [done.finish_reason for done in together] == ["cancelled"] * 2
        assert len(asked) == 2
        assert llm.generate_batch([PROMPT], max_tokens=3)[0].text == expected


@pytest.mark.parametrize("kind", ["llama-2", "mistral-window"])
def test_a_read_that_fails_costs_no_sequence(kind, tiny_folder):
    folder = tiny_folder(kind, seed=1)
    checkpoint = read_checkpoint(folder)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    reader = FailingReader()
    load = LoadSettings(**paged_settings(folder, context=200))
    with open_checkpoint(checkpoint, tokenizer, load, reader=reader) as llm:
        alone = [llm.generate(PROMPT[:n], max_tokens=8).text for n in (5, 12)]
        with llm.batch() as batch:
            numbers = [batch.submit(PROMPT[:n], Sampling(max_tokens=8)) for n in (5, 12)]
            texts, failures, steps = dict.fromkeys(numbers, ""), 0, 0
            while not batch.idle:
                steps += 1
                if steps in (1, 4):
                    reader.fail_at = reader.bytes_read + 1
                try:
                    for number, token in batch.step():
                        texts[number] += token.text
                except ReadError:
                    failures += 1
                    reader.fail_at = None
        assert failures == 2
        assert list(texts.values()) == alone


def test_an_engine_holds_the_model_only_while_it_has_sequences(open_llm):
    llm = open_llm("llama-2")
    expected = llm.generate(PROMPT, max_tokens=4).text
    texts = []
    with llm.engine() as engine:
        assert llm.generate(PROMPT, max_tokens=4).text == expected
        engine.submit(PROMPT[:5], max_tokens=3)
        assert llm.generate(PROMPT, max_tokens=4).text == expected, "nothing is computed yet"
        engine.step()
        other = threading.Thread(
            target=lambda: texts.append(llm.generate(PROMPT, max_tokens=4).text)
        )
        other.start()
        engine.step()
        assert not texts
        while not engine.idle:
            engine.step()
        other.join()
        assert texts == [expected]
        assert llm.generate(PROMPT, max_tokens=4).text == expected


def test_what_ends_while_the_model_is_waited_for_is_told_at_once(open_llm):
    llm = open_llm("llama-2")
    inside, go_on = threading.Event(), threading.Event()

    def hold(progress):
        inside.set()
        go_on.wait(60)

    other = threading.Thread(target=lambda: llm.generate(PROMPT, max_tokens=2, on_prefill=hold))
    other.start()
    assert inside.wait(60)
    with llm.engine() as engine:
        number = engine.submit(PROMPT, timeout=0.01)
        assert [(who, token.finish_reason) for who, token in engine.step()] == [(number, "timeout")]
        number = engine.submit(PROMPT)
        told = []
        stepping = threading.Thread(target=lambda: told.extend(engine.step()))
        stepping.start()
        engine.cancel(number)
        stepping.join()
        assert [(who, token.finish_reason) for who, token in told] == [(number, "cancelled")]
        go_on.set()
        other.join()
        number = engine.submit(PROMPT, max_tokens=1)
        assert [(who, token.finish_reason) for who, token in engine.step()] == [(number, "length")]


def test_an_engine_that_nobody_has_any_more_holds_nothing(open_llm):
    llm = open_llm("llama-2")
    expected = llm.generate(PROMPT, max_tokens=4).text
    engine = llm.engine()
    engine.submit(PROMPT)
    engine.step()
    with pytest.raises(EdgeLLMError, match="unfinished sequences"):
        llm.generate(PROMPT, max_tokens=4)
    del engine
    gc.collect()
    assert llm.generate(PROMPT, max_tokens=4).text == expected
    assert llm.prefix_cache.running_bytes == 0


def test_a_closed_model_closes_its_engines(open_llm):
    llm = open_llm("llama-2")
    engine = llm.engine()
    woken = []
    waiting = threading.Thread(target=lambda: woken.append(engine.wait()))
    waiting.start()
    number = engine.submit(PROMPT)
    waiting.join()
    engine.step()
    idle_engine = llm.engine()
    waiting = threading.Thread(target=lambda: woken.append(idle_engine.wait()))
    waiting.start()
    llm.close()
    waiting.join()
    assert woken == [True, False]
    for call in (engine.step, lambda: engine.step(wait=True), lambda: engine.submit(PROMPT)):
        with pytest.raises(ClosedError, match="the model was closed"):
            call()
    assert [(who, token.finish_reason) for who, token in engine.close()] == [(number, "cancelled")]
    for call in (llm.engine, llm.batch, lambda: llm.stream_batch([PROMPT])):
        with pytest.raises(ClosedError, match="the model was closed"):
            call()


def test_step_waits_for_work_no_longer_than_it_is_told(open_llm):
    with open_llm("llama-2").engine() as engine:
        assert engine.step() == engine.step(wait=False) == engine.step(wait=0.001) == []
        assert not engine.wait(0.001)
        got = []
        thread = threading.Thread(target=lambda: got.extend(engine.step(wait=True)))
        thread.start()
        number = engine.submit(PROMPT[:5], max_tokens=1)
        thread.join()
        assert [(who, token.finish_reason) for who, token in got] == [(number, "length")]
        for bad in ("1", -1, float("nan")):
            with pytest.raises(ConfigError, match="wait"):
                engine.step(wait=bad)
            with pytest.raises(ConfigError, match="timeout"):
                engine.wait(bad)


def test_a_time_that_is_over_ends_a_sequence_wherever_it_is(open_llm):
    llm = open_llm("llama-2")
    llm.eos_token_ids = frozenset()
    seconds, began = 0.05, False
    with llm.engine(at_once=1) as engine:
        while not began:  # else this machine took longer than that to the first token
            seconds *= 2
            running = engine.submit(PROMPT[:5], max_tokens=200, timeout=seconds)
            waiting = engine.submit(PROMPT[:5], max_tokens=200, timeout=1e-6)
            patient = engine.submit(PROMPT[:5], max_tokens=2, timeout=1e6)
            ends = {}
            while not engine.idle:
                for who, token in engine.step():
                    began = began or (who == running and not token.finish_reason)
                    if token.finish_reason:
                        ends[who] = token
                time.sleep(seconds / 20)
    assert {who: token.finish_reason for who, token in ends.items()} == {
        running: "timeout",
        waiting: "timeout",
        patient: "length",
    }
    assert 0 < ends[running].stats.completion_tokens < 200
    assert ends[waiting].stats.completion_tokens == 0


def test_a_closed_engine_takes_nothing_and_steps_no_more(open_llm):
    llm = open_llm("llama-2")
    expected = llm.generate(PROMPT, max_tokens=4).text
    batch = llm.batch(at_once=1)
    batch.submit(PROMPT)
    batch.submit(PROMPT)
    batch.step()
    last = batch.close()
    assert [(number, token.finish_reason) for number, token in last] == [
        (1, "cancelled"),
        (2, "cancelled"),
    ]
    assert [token.stats.completion_tokens for _, token in last] == [1, 0]
    assert batch.close() == []
    assert not batch.wait()
    with pytest.raises(ClosedError, match="the engine was closed"):
        batch.submit(PROMPT)
    with pytest.raises(ClosedError, match="the engine was closed"):
        batch.step()
    batch.cancel(1)
    assert batch.idle
    assert llm.generate(PROMPT, max_tokens=4).text == expected


def test_two_threads_take_turns_at_steps_and_close_waits(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    checkpoint = read_checkpoint(folder)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    inside, go_on = threading.Event(), threading.Event()

    class WaitingReader(FailingReader):
        """Reads while the test lets it."""

        waits = False

        def submit(self, extents, memory):
            if self.waits:
                inside.set()
                go_on.wait(60)
            return super().submit(extents, memory)

    reader = WaitingReader()
    load = LoadSettings(**paged_settings(folder, context=200))
    with open_checkpoint(checkpoint, tokenizer, load, reader=reader) as llm:
        expected = llm.generate(PROMPT, max_tokens=4)
        engine = llm.engine()
        number = engine.submit(PROMPT, max_tokens=4)
        reader.waits = True
        tokens, last = [], []
        first = threading.Thread(target=lambda: tokens.extend(engine.step()))
        first.start()
        assert inside.wait(60)
        # neither waits for the pass that is under way
        waiting = engine.submit(PROMPT[:9], max_tokens=4)
        assert (engine.running, engine.waiting) == (2, 0)
        engine.cancel(waiting)
        assert engine.running == 1
        second = threading.Thread(target=lambda: tokens.extend(engine.step()))
        second.start()
        reader.waits = False
        go_on.set()
        first.join()
        second.join()
        closing = threading.Thread(target=lambda: last.extend(engine.close()))
        closing.start()
        closing.join()
        assert [(who, token.finish_reason) for who, token in tokens] == [
            (waiting, "cancelled"),
            (number, None),
            (number, None),
        ]
        assert [(who, token.finish_reason) for who, token in last] == [(number, "cancelled")]
        assert [token.id for who, token in tokens if who == number] == [
            token.id for token in expected.tokens[:2]
        ]
        assert llm.generate(PROMPT, max_tokens=4).text == expected.text


def test_a_token_that_cannot_be_drawn_ends_its_sequence_alone(open_llm):
    llm = open_llm("llama-2")
    llm.eos_token_ids = frozenset()
    expected = [token.id for token in llm.generate(PROMPT, max_tokens=6).tokens]

    def fail_at(length, error):
        def process(tokens, logits):
            if len(tokens) == length:
                raise error
            return logits

        return process

    class DemandingError(Exception):
        def __str__(self):
            raise ValueError

    def no_numbers(tokens, logits):
        return logits * float("nan")

    ways = [
        fail_at(len(PROMPT) + 2, ZeroDivisionError("in the third")),
        fail_at(len(PROMPT), MemoryError()),
        fail_at(len(PROMPT) + 1, DemandingError()),
        no_numbers,
        lambda tokens, logits: None,
    ]
    with llm.engine() as engine:
        numbers = [engine.submit(PROMPT, max_tokens=6)]
        numbers += [engine.submit(PROMPT, max_tokens=6, logits_processors=[way]) for way in ways]
        found = {number: [] for number in numbers}
        while not engine.idle:
            for number, token in engine.step():
                found[number].append(token)
        assert engine.stats.sequences == 6
        assert engine.kv_bytes.in_use == 0
    whole, *failed = found.values()
    assert [token.id for token in whole] == expected
    assert [len(tokens) for tokens in failed] == [3, 1, 2, 1, 1]
    for tokens in failed:
        assert [token.id for token in tokens[:-1]] == expected[: len(tokens) - 1]
        assert tokens[-1].finish_reason == "error"
        assert isinstance(tokens[-1].error, EdgeLLMError)
        assert tokens[-1].error.hint
    assert "in the third" in failed[0][-1].error.message


def test_a_step_that_is_interrupted_while_it_draws_loses_nothing(open_llm):
    llm = open_llm("llama-2")
    llm.eos_token_ids = frozenset()
    expected = [token.id for token in llm.generate(PROMPT, max_tokens=6).tokens]
    interrupted = []

    def interrupt_once(tokens, logits):
        if len(tokens) == len(PROMPT) + 2 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return logits

    with llm.engine() as engine:
        for processors in ([], [interrupt_once], []):
            engine.submit(PROMPT, max_tokens=6, logits_processors=processors)
        found = {1: [], 2: [], 3: []}
        while not engine.idle:
            try:
                for number, token in engine.step():
                    found[number].append(token.id)
            except KeyboardInterrupt:
                assert interrupted
    assert interrupted
    assert list(found.values()) == [expected] * 3


def test_a_step_within_a_step_is_refused(open_llm):
    llm = open_llm("llama-2")
    refused = []

    def call_back(tokens, logits):
        for call in (engine.step, engine.close):
            with pytest.raises(EdgeLLMError, match="within a step") as raised:
                call()
            refused.append(raised.value.hint)
        return logits

    with llm.engine() as engine:
        number = engine.submit(PROMPT, max_tokens=1, logits_processors=[call_back])
        assert [who for who, _ in engine.step()] == [number]
    assert len(refused) == 2
