"""AsyncLLM: answers in tasks and loops; whoever leaves, and however, frees the sequence."""

import asyncio
import copy
import gc
import threading

import pytest
from support import tiny
from support.counting import paged_settings
from support.processes import python
from support.readers import FailingReader

from edgellm import AsyncLLM
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ClosedError, ConfigError, EdgeLLMError, QueueFullError, ReadError
from edgellm.open_llm import open_llm as open_checkpoint
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

PROMPT = [tiny.BEGIN, *range(20, 30)]
LONG = 4000


@pytest.fixture
def model(open_llm):
    return open_llm("llama-2", load={"context": 4096}, config={"max_position_embeddings": 4096})


def run(model, work, **settings):
    """Run a coroutine function over an AsyncLLM; all it leaves behind must be freed."""

    async def main():
        async with AsyncLLM(model, **settings) as llm:
            await work(llm)
            gc.collect()  # errors hold the frames that they came through
            while llm.running or llm.waiting:  # a sequence that stays ends in the test's timeout
                await asyncio.sleep(0.001)
            assert llm.kv_bytes.in_use == 0

    asyncio.run(main())
    assert engine_threads() == []


OTHERS = set()
"""Threads that were there before a test: servers of other tests may share this process."""


@pytest.fixture(autouse=True)
def note_threads_of_others():
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def engine_threads():
    ours = ("edgellm-engine", "edgellm-async")
    threads = set(threading.enumerate()) - OTHERS
    return [thread for thread in threads if thread.name.startswith(ours)]


def test_answers_side_by_side_are_those_of_a_lone_caller(model):
    prompts = [PROMPT, PROMPT[:3], "a text"]
    alone = [model.generate(prompt, max_tokens=6).text for prompt in prompts]

    async def work(llm):
        done = await asyncio.gather(*(llm.generate(one, max_tokens=6) for one in prompts))
        assert [completion.text for completion in done] == alone
        stream = llm.stream(PROMPT, max_tokens=6)
        with pytest.raises(EdgeLLMError, match="has not ended"):
            _ = stream.completion
        tokens = [token async for token in stream]
        assert [token async for token in stream] == []
        assert stream.completion.tokens == tuple(tokens)
        assert stream.stats.completion_tokens == len(tokens) == 6
        stats = llm.stats
        assert (stats.sequences, stats.preemptions, stats.completion_tokens) == (4, 0, 24)
        assert 0 < stats.passes <= stats.steps
        assert llm.max_queue == 2

    run(model, work, max_queue=2)
    assert model.generate(PROMPT, max_tokens=6).text == alone[0]  # it was left open


async def leave_the_loop(llm):
    async for _ in llm.stream(PROMPT, max_tokens=LONG):
        break


async def leave_the_block(llm):
    async with llm.stream(PROMPT, max_tokens=LONG) as stream:
        await anext(stream)
    assert [token async for token in stream] == []


async def never_read(llm):
    llm.stream(PROMPT, max_tokens=LONG)


async def leave_in_a_circle(llm):
    circle = [llm.stream(PROMPT, max_tokens=LONG)]
    circle.append(circle)


async def cancel_the_task(llm):
    task = asyncio.create_task(llm.generate(PROMPT, max_tokens=LONG))
    while not llm.running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def let_time_run_out(llm):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(llm.generate(PROMPT, max_tokens=LONG), 0.01)


async def leave_a_generator(llm):
    texts = (token.text async for token in llm.stream(PROMPT, max_tokens=LONG))
    await anext(texts)
    del texts


@pytest.mark.parametrize(
    "leave",
    [
        leave_the_loop,
        leave_the_block,
        never_read,
        leave_in_a_circle,
        cancel_the_task,
        let_time_run_out,
        leave_a_generator,
    ],
)
def test_who_leaves_frees_the_sequence_and_nobody_else_notices(model, leave):
    alone = model.generate(PROMPT[:4], max_tokens=20).text

    async def work(llm):
        other = asyncio.create_task(llm.generate(PROMPT[:4], max_tokens=20))
        await leave(llm)
        assert (await other).text == alone

    run(model, work)
    assert model.generate(PROMPT[:4], max_tokens=20).text == alone


def test_cancelled_and_timed_out_answers_have_a_last_token(model):
    async def work(llm):
        stream = llm.stream(PROMPT, max_tokens=LONG)
        await anext(stream)
        stream.cancel()
        rest = [token async for token in stream]
        assert rest[-1].finish_reason == stream.completion.finish_reason == "cancelled"
        late = await llm.generate(PROMPT, max_tokens=4000, timeout=0.02)
        assert late.finish_reason == "timeout"

    run(model, work)


def test_an_answer_that_is_not_read_waits_for_its_reader_and_holds_up_nobody(model):
    async def work(llm):
        stream = llm.stream(PROMPT, max_tokens=50)
        await llm.generate(PROMPT[:3], max_tokens=60)
        assert llm.running == 0
        assert len([token async for token in stream]) == 50

    run(model, work)


def test_a_queue_that_is_full_refuses_at_the_call(model):
    async def work(llm):
        first, second = (llm.stream(PROMPT, max_tokens=LONG) for _ in range(2))
        assert (llm.running, llm.waiting) == (1, 1)
        with pytest.raises(QueueFullError):
            llm.stream(PROMPT, max_tokens=1)
        with pytest.raises(ConfigError):
            llm.stream(PROMPT, max_tokens=0)
        await first.aclose()
        assert (await anext(second)).id is not None
        await second.aclose()

    run(model, work, at_once=1, max_queue=1)


def test_loops_in_several_threads_share_a_model(model):
    alone = model.generate(PROMPT, max_tokens=12).text
    texts = []

    async def work(llm):
        async def ask():
            texts.extend([(await llm.generate(PROMPT, max_tokens=12)).text for _ in range(3)])

        others = [threading.Thread(target=asyncio.run, args=[ask()]) for _ in range(2)]
        for thread in others:
            thread.start()
        await ask()
        for thread in others:
            thread.join()

    run(model, work)
    assert texts == [alone] * 9


def test_a_loop_that_was_closed_frees_its_answers(model):
    async def work(llm):
        def abandon():
            loop = asyncio.new_event_loop()
            kept.append(loop.create_task(llm.generate(PROMPT, max_tokens=LONG)))
            loop.run_until_complete(asyncio.sleep(0.005))
            loop.close()

        thread = threading.Thread(target=abandon)
        thread.start()
        thread.join()
        while llm.running:
            await asyncio.sleep(0.001)

    kept = []
    run(model, work)
    kept.pop()._log_destroy_pending = False


def test_a_conversation_is_that_of_a_chat_also_where_a_reply_was_left(model):
    alone = model.chat("Be kind.", temperature=1.0, seed=7, max_tokens=8)
    for text in ("hello", "and you?"):
        alone.send(text)

    async def work(llm):
        chat = llm.chat("Be kind.", temperature=1.0, seed=7, max_tokens=8)
        assert await chat.send("hello") == alone.messages[2]["content"]
        stream = chat.stream("and you?")
        assert [token async for token in stream][-1].finish_reason is not None
        assert chat.messages == alone.messages
        async with chat.stream("and then?", max_tokens=LONG) as stream:
            read = "".join([(await anext(stream)).text for _ in range(4)])
        assert chat.messages[-1]["content"] == read
        chat.chat.undo()
        assert chat.messages == alone.messages
        with pytest.raises(ConfigError, match="no argument 'max_token'"):
            chat.stream("and then?", max_token=5)

    run(model, work)


def test_two_tasks_cannot_read_one_stream_at_once(model):
    async def work(llm):
        stream = llm.stream(PROMPT, max_tokens=LONG)
        with pytest.raises(EdgeLLMError, match="another task"):
            await asyncio.gather(anext(stream), anext(stream))
        await stream.aclose()

    run(model, work)


def test_closing_ends_what_is_under_way_with_an_error(model):
    async def main():
        llm = AsyncLLM(model)
        waiting = asyncio.create_task(llm.generate(PROMPT, max_tokens=4000))
        unread = llm.stream(PROMPT, max_tokens=4000)
        await asyncio.sleep(0.01)
        await llm.aclose()
        await llm.aclose()
        with pytest.raises(ClosedError):
            await waiting
        with pytest.raises(ClosedError):
            _ = [token async for token in unread]
        with pytest.raises(ClosedError):
            llm.stream(PROMPT)

    asyncio.run(main())
    assert engine_threads() == []


def test_a_model_that_is_closed_meanwhile_ends_the_answers(model):
    async def main():
        async with AsyncLLM(model) as llm:
            waiting = asyncio.create_task(llm.generate(PROMPT, max_tokens=4000))
            await asyncio.sleep(0.01)
            model.close()
            with pytest.raises(ClosedError):
                await waiting

    asyncio.run(main())
    assert engine_threads() == []


def test_a_read_that_fails_is_an_error_in_the_tasks_that_wait(tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    checkpoint = read_checkpoint(folder)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    reader = FailingReader()
    load = LoadSettings(**paged_settings(folder, context=200))
    with open_checkpoint(checkpoint, tokenizer, load, reader=reader) as model:
        alone = model.generate(PROMPT, max_tokens=8).text

        async def work(llm):
            reader.fail_at = reader.bytes_read + 1
            answers = [llm.generate(PROMPT, max_tokens=8) for _ in range(2)]
            results = await asyncio.gather(*answers, return_exceptions=True)
            assert [type(result) for result in results] == [ReadError] * 2
            reader.fail_at = None
            assert (await llm.generate(PROMPT, max_tokens=8)).text == alone

        run(model, work)


def test_loading_tells_the_loop_how_far_it_is_and_can_be_given_up(tiny_folder):
    folder = tiny_folder("llama-2")
    told = []

    def progress(done, total):
        told.append((done, total, threading.get_ident()))

    async def main():
        llm = await AsyncLLM.load(folder, memory="500MB", threads=1, progress=progress)
        async with llm:
            assert (await llm.generate(PROMPT, max_tokens=2)).finish_reason == "length"
        with pytest.raises(ClosedError):
            llm.llm.generate(PROMPT)
        loading = asyncio.create_task(AsyncLLM.load(folder, memory="500MB"))
        await asyncio.sleep(0)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading

    asyncio.run(main())
    done, total, _ = told[-1]
    assert done == total
    assert {thread for *_, thread in told} == {threading.get_ident()}


QUIT_IN_MID_ANSWER = """
import sys, edgellm
assert "asyncio" not in sys.modules
import asyncio
async def main():
    llm = edgellm.AsyncLLM(edgellm.load(sys.argv[1], memory="500MB", threads=1))
    async for token in llm.stream([1, 20, 21], max_tokens=4000):
        break
    kept.append(llm.stream([1, 20, 21], max_tokens=4000))
kept = []
asyncio.run(main())
print("end")
"""


def test_a_program_that_closes_nothing_ends_in_mid_answer(tiny_folder):
    folder = tiny_folder("llama-2", config={"max_position_embeddings": 4096})
    assert python(QUIT_IN_MID_ANSWER, folder) == "end\n"


def test_a_stream_says_how_it_has_ended(model):
    def fails(tokens, logits):
        raise ValueError("no")

    async def work(llm):
        assert repr(llm).startswith("<AsyncLLM 0 running, 0 waiting: <LLM ")
        stream = llm.stream(PROMPT, max_tokens=LONG)
        await anext(stream)
        assert repr(stream) == "<AsyncStream open, 1 tokens read>"
        await stream.aclose()
        assert repr(stream) == "<AsyncStream given up, 1 tokens read>"
        with pytest.raises(EdgeLLMError, match="given up"):
            _ = stream.completion
        failed = llm.stream(PROMPT, logits_processors=[fails])
        with pytest.raises(ConfigError, match="no"):
            await anext(failed)
        assert failed.completion.finish_reason == "error"
        for one in (llm, stream):
            with pytest.raises(EdgeLLMError, match="neither pickled nor copied"):
                copy.copy(one)

    run(model, work)


def test_a_function_that_would_end_the_thread_ends_the_answers(model):
    def leaves(tokens, logits):
        raise SystemExit

    async def main():
        async with AsyncLLM(model) as llm:
            stream = llm.stream(PROMPT, max_tokens=3, logits_processors=[leaves])
            other = llm.stream(PROMPT, max_tokens=LONG)
            for one in (stream, other):
                with pytest.raises(EdgeLLMError, match="SystemExit"):
                    [token async for token in one]
            assert (await llm.generate(PROMPT, max_tokens=1)).ids

    asyncio.run(main())


def test_loading_ends_where_progress_raises(tiny_folder):
    def refuse(done, total):
        raise ValueError("enough")

    async def main(progress, error):
        with pytest.raises(error):
            await AsyncLLM.load(tiny_folder("llama-2"), progress=progress)

    asyncio.run(main(refuse, ValueError))
    asyncio.run(main(3, ConfigError))
