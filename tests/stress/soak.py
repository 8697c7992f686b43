"""Holds one process to flat memory, threads and files while threads and chats use models.

Run by hand: python tests/stress/soak.py --minutes 3
"""

import argparse
import asyncio
import gc
import os
import random
import sys
import threading
import time
from contextlib import suppress

import edgellm
from edgellm.device.machine import process_memory
from edgellm.errors import EdgeLLMError

MEMORY_MARGIN = 48 << 20
"""Bytes that memory may differ by: what allocators keep, which does not grow with time."""

PROMPTS = ["Once upon a time", "The dog saw", "Lily had a ball and", "One day", "A bird"]


class StopHereError(Exception):
    """Raised in the middle of a generation, as a caller's own code might."""


def stop_here(progress):
    """Fail as a callback."""
    raise StopHereError


def use_once(llm, draw):
    """Use a model in one of the ways that end well, half-way, or in an error."""
    prompt = draw.choice(PROMPTS)
    way = draw.randrange(7)
    if way == 0:
        assert llm.generate(prompt, max_tokens=8).finish_reason
    elif way == 1:
        stream = llm.stream(prompt, max_tokens=8)
        next(stream)
        del stream  # dropped half-way
    elif way == 2:
        stream = llm.stream(prompt, max_tokens=8)
        next(stream)
        llm.cancel()
        list(stream)
    elif way == 3:
        with suppress(EdgeLLMError):
            llm.generate(prompt, max_tokens=4, temperature=-1)
    elif way == 4:
        with suppress(StopHereError):
            list(llm.stream(prompt, max_tokens=4, on_prefill=stop_here))
    elif way == 5:
        llm.generate_batch(PROMPTS[:3], max_tokens=4)
    else:
        llm.generate(prompt, max_tokens=6, temperature=0.8, beams=1, logprobs=True)


def chat_once(llm, draw):
    """Hold a conversation of two turns."""
    chat = llm.chat()
    for _ in range(2):
        list(chat.stream(draw.choice(PROMPTS), max_tokens=4))


def held():
    """Return bytes, threads and open files of this process."""
    gc.collect()
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return process_memory(), threading.active_count(), files


def measure(out):
    """Return what ``held`` does, and write it."""
    measured = held()
    out.write(" ".join(map(str, measured)) + "\n")
    out.flush()
    return measured


def soak(llm, *, threads, seconds, chats, interval, out):
    """Use a model from many threads, then from asyncio; return the measurements of ``held``."""
    end = time.monotonic() + seconds
    failures = []

    def work(seed):
        draw = random.Random(seed)
        while time.monotonic() < end and not failures:
            try:
                use_once(llm, draw)
            except BaseException as error:
                failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    measured = []
    while any(worker.is_alive() for worker in workers):
        time.sleep(min(interval, max(0.05, end - time.monotonic())))
        measured.append(measure(out))
    for worker in workers:
        worker.join()
    draw = random.Random(1)
    if llm.tokenizer.chat_template is not None:
        for number in range(chats):
            chat_once(llm, draw)
            if number % max(1, chats // 10) == 0:
                measured.append(measure(out))

    async def many():
        await asyncio.gather(
            *(asyncio.to_thread(llm.generate, prompt, max_tokens=4) for prompt in PROMPTS * 4)
        )

    asyncio.run(many())
    if failures:
        raise failures[0]
    return measured


def main():
    """Soak the bundled model; exit with 1 where anything grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--chats", type=int, default=1000)
    options = parser.parse_args()
    with edgellm.load("stories", memory="500MB") as llm:
        llm.generate(PROMPTS[0], max_tokens=8)
        llm.generate_batch(PROMPTS, max_tokens=4)
        chat_once(llm, random.Random(0))  # templates have a process of their own from here on
        sys.stdout.write("bytes, threads, files\n")
        before = measure(sys.stdout)
        soak(
            llm,
            threads=options.threads,
            seconds=60 * options.minutes,
            chats=options.chats,
            interval=10,
            out=sys.stdout,
        )
        after = measure(sys.stdout)
    grown = after[0] - before[0] > MEMORY_MARGIN or after[1:] != before[1:]
    sys.exit("something grew" if grown else 0)


if __name__ == "__main__":
    main()
