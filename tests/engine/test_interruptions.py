"""An engine that is interrupted: cancelled, closed, or let down by its disk."""

import threading

import pytest
from support import tiny
from support.counting import open_counted, paged_settings
from support.readers import FailingReader

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ClosedError, EdgeLLMError, ReadError
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


def test_a_read_that_fails_costs_no_sequence(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
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
                if steps == 4:
                    reader.fail_at = reader.bytes_read + 1
                try:
                    for number, token in batch.step():
                        texts[number] += token.text
                except ReadError:
                    failures += 1
                    reader.fail_at = None
        assert failures == 1
        assert list(texts.values()) == alone


def test_an_engine_holds_the_model_until_it_is_closed(open_llm):
    llm = open_llm("llama-2")
    expected = llm.generate(PROMPT, max_tokens=4).text
    with llm.batch() as batch:
        batch.submit(PROMPT[:5])
        batch.step()
        with pytest.raises(EdgeLLMError, match="another stream"):
            llm.generate(PROMPT, max_tokens=4)
        texts = []
        thread = threading.Thread(
            target=lambda: texts.append(llm.generate(PROMPT, max_tokens=4).text)
        )
        thread.start()
        batch.step()
        assert not texts
    thread.join()
    assert texts == [expected]
    batch = llm.batch()
    batch.submit(PROMPT)
    llm.close()
    with pytest.raises(ClosedError):
        batch.step()
    batch.close()


def test_a_closed_batch_takes_nothing_and_steps_no_more(open_llm):
    llm = open_llm("llama-2")
    expected = llm.generate(PROMPT, max_tokens=4).text
    batch = llm.batch()
    batch.submit(PROMPT)
    batch.step()
    batch.close()
    batch.close()
    with pytest.raises(ClosedError, match="the batch was closed"):
        batch.submit(PROMPT)
    with pytest.raises(ClosedError, match="the batch was closed"):
        batch.step()
    batch.cancel(1)
    assert batch.idle
    assert llm.generate(PROMPT, max_tokens=4).text == expected


def test_two_threads_in_one_step_are_an_error_and_harm_nothing(tiny_folder):
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
        expected = llm.generate(PROMPT, max_tokens=4).text
        batch = llm.batch()
        batch.submit(PROMPT, Sampling(max_tokens=4))
        reader.waits = True
        tokens = []
        stepping = threading.Thread(target=lambda: tokens.extend(batch.step()))
        stepping.start()
        assert inside.wait(60)
        with pytest.raises(EdgeLLMError, match="another thread is in a step"):
            batch.step()
        closing = threading.Thread(target=batch.close)
        closing.start()
        reader.waits = False
        go_on.set()
        stepping.join()
        closing.join()
        assert len(tokens) == 1
        assert llm.generate(PROMPT, max_tokens=4).text == expected
