"""Thousands of requests to ``edgellm serve``: no foreign token, nothing left behind, flat memory.

    python tests/stress/serving.py [--requests 10000] [--at-once 64] [--seconds S] [--memory 64MB]
    python tests/stress/serving.py --all-leave --requests 1000

Each request is a turn of one of some hundred conversations, each with a canary of its own, whole
or streamed. A third of the clients leave: at once, in their prompt, or in mid-answer. Every answer
that is read to its end has to be, letter for letter, what the Python API answers alone. The KV
caches do not all fit, so kept ones are evicted, and sequences give way to others. In the end
nothing runs or waits. The exit status says whether all of that is so. With ``--all-leave`` nobody
stays, and the time is told from the last client's leaving until nothing runs or waits.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.async_http import send, whole
from support.resources import resident_bytes

import edgellm

NAMES = ("Lily", "Tom", "Ben", "Sue", "Max", "Anna", "Tim", "Mia", "Sam", "Zoe")
THINGS = ("boat", "ball", "dog", "cake", "tree", "bird", "car", "hat", "frog", "star")
WORDS = ("happy", "small", "red", "funny", "brave", "sleepy", "blue", "kind", "wet", "soft")
LEAVE = ("at once", "prompt", "answer")
LEAVING = (*LEAVE, None, None, None, None, None, None)
"""When a client leaves; most never do."""

PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Asked:
    """A turn of a conversation.

    Attributes:
        messages: so far.
        max_tokens: of the reply.
    """

    messages: tuple[dict[str, str], ...]
    max_tokens: int


@dataclass
class Seen:
    """What the clients saw, and what the server held."""

    statuses: Counter = field(default_factory=Counter)
    left: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def conversations(count):
    """Turns with canaries: a name, a thing and a word that no other conversation has together."""
    choice = random.Random(1)
    turns = []
    for place in range(count):
        name, thing, word = (
            NAMES[place % 10],
            THINGS[place // 10 % 10],
            WORDS[place // 100 % 10],
        )
        canary = f"Tell me a story about {name}, who has a {word} {thing} and the number {place}."
        filler = f" The {thing} is {word}." * choice.choice((0, 4, 30))
        first = {"role": "user", "content": canary + filler}
        turns.append(Asked((first,), choice.choice((4, 12, 40))))
        reply = {"role": "assistant", "content": f"{name} had a {word} {thing}. It was nice."}
        again = {"role": "user", "content": f"What did {name} do with the {thing}?"}
        turns.append(Asked((first, reply, again), choice.choice((4, 16))))
    return turns


def answered_alone(asked):
    """What each turn is answered where nobody else asks."""
    with edgellm.load("stories") as llm:
        return [
            llm.chat(temperature=0).send(list(one.messages), max_tokens=one.max_tokens)
            for one in asked
        ]


@contextmanager
def server(*options):
    """``edgellm serve`` in a process of its own: its port and the process."""
    command = [sys.executable, "-m", "edgellm", "serve", "stories", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stderr.readline()
            found = re.search(r"http://[\d.]+:(\d+)/v1", said)
            assert found, said
            yield int(found.group(1)), process
        finally:
            process.terminate()


async def ask(port, asked, leaves, choice):
    """The status of a request and its text; the text is None where the client has left."""
    streamed = choice.random() < 0.7
    body = {
        "model": "stories",
        "messages": list(asked.messages),
        "max_tokens": asked.max_tokens,
        "temperature": 0,
        "stream": streamed,
    }
    reader, writer = await send(port, PATH, body)
    try:
        if leaves == "at once":
            return None, None
        if leaves == "prompt":
            await asyncio.sleep(choice.uniform(0, 0.1))
            return None, None
        if leaves == "answer":
            await reader.readline()
            await asyncio.sleep(choice.uniform(0, 0.05))
            return None, None
        status, _, rest = await whole(reader, writer)
    finally:
        writer.close()
    if status != 200 or not streamed:
        value = json.loads(rest)
        return status, value["choices"][0]["message"]["content"] if status == 200 else str(value)
    events = rest.split("\n\n")
    assert events[-2] == "data: [DONE]", events[-3:]
    values = [json.loads(event[6:]) for event in events[:-2] if event.startswith("data: ")]
    deltas = [value["choices"][0]["delta"].get("content", "") for value in values]
    return status, "".join(deltas)


async def get(port, path):
    """The object of an answer."""
    _, _, text = await whole(*await send(port, path))
    return json.loads(text)


async def soak(
    port, process, asked, right, *, requests, at_once, seconds=None, seed=0, leaving=LEAVING
):
    """Let the clients come; return what they saw."""
    choice = random.Random(seed)
    seen = Seen()
    places = asyncio.Semaphore(at_once)
    begun = time.perf_counter()

    async def client(place, leaves):
        try:
            status, text = await ask(port, asked[place], leaves, choice)
        except (OSError, AssertionError, ValueError, IndexError, KeyError) as error:
            seen.broken.append(f"{type(error).__name__}: {error}")
            return
        finally:
            places.release()
        seen.statuses[status] += 1
        if text is None:
            seen.left += 1
        elif status == 200 and text != right[place]:
            seen.wrong.append(f"{text!r} instead of {right[place]!r}")

    async def watch():
        while True:
            seen.memory.append((time.perf_counter() - begun, resident_bytes(process)))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    tasks = set()
    for _ in range(requests):
        if seconds is not None and time.perf_counter() - begun > seconds:
            break
        await places.acquire()
        task = asyncio.create_task(client(choice.randrange(len(asked)), choice.choice(leaving)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    return seen


async def left_behind(port):
    """What the server still computes, waited for for ten seconds, and the milliseconds waited."""
    begun = time.perf_counter()
    for _ in range(1000):
        (model,) = (await get(port, "/v1/models"))["data"]
        busy = {name: model[name] for name in ("running", "waiting")}
        if not any(busy.values()):
            break
        await asyncio.sleep(0.01)
    return busy, 1000 * (time.perf_counter() - begun)


def measured(*, requests, at_once, seconds=None, memory, all_leave=False, conversations_count=300):
    """What the clients of a server saw, the time, and what was left behind."""
    asked = conversations(conversations_count)
    right = [] if all_leave else answered_alone(asked)
    with server("--memory", memory) as (port, process):
        begun = time.perf_counter()
        seen = asyncio.run(
            soak(
                port,
                process.pid,
                asked,
                right,
                requests=requests,
                at_once=at_once,
                seconds=seconds,
                leaving=LEAVE if all_leave else LEAVING,
            )
        )
        elapsed = time.perf_counter() - begun
        return seen, elapsed, *asyncio.run(left_behind(port))


def growth(memory):
    """Bytes a second by which memory grew in the second half."""
    half = memory[len(memory) // 2 :]
    return linear_regression(*zip(*half, strict=True)).slope if len(half) > 1 else 0.0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--memory", default="64MB")
    parser.add_argument("--all-leave", action="store_true")
    options = parser.parse_args()
    seen, elapsed, busy, waited = measured(**vars(options))
    total = seen.statuses.total()
    sizes = [size / 1e6 for _, size in seen.memory]
    rows = {
        "requests": f"{total} in {elapsed:.0f} s, {total / elapsed:.0f}/s, {seen.left} left early",
        "statuses": dict(seen.statuses),
        "foreign texts": f"{len(seen.wrong)} {seen.wrong[:3]}",
        "broken": f"{len(seen.broken)} {seen.broken[:3]}",
        "memory": f"{sizes[0]:.0f} MB, then at most {max(sizes):.0f} MB",
        "by tenths": " ".join(f"{size:.0f}" for size in sizes[:: max(1, len(sizes) // 10)]),
        "second half": f"{growth(seen.memory) / 1e3:+.1f} KB/s",
        "left behind": f"{busy} after {waited:.0f} ms",
    }
    for name, figure in rows.items():
        sys.stdout.write(f"{name:16}{figure}\n")
    return bool(seen.wrong or seen.broken or any(busy.values()))


if __name__ == "__main__":
    sys.exit(main())
