"""Clients that would hang ``edgellm serve``: one that stops reading, full caches, a retry storm.

    python tests/stress/hostile_clients.py [CASE...] [--seconds 60]

``stopped-reader``: a client of a long answer takes nothing of it for so many seconds, while others
stream. Those keep the pace that they have beside a client that reads; what it has not taken costs
bounded memory, and in the end its answer is whole. Another one never reads on: the server ends in
time all the same. ``full-cache``: 16 requests at once for so many seconds, with many more
conversations than there is room for. ``retry-storm``: 64 clients at once ask a server that computes
two answers and lets four wait; those refused ask again, as told or at once, and some give up after
a moment and come again. The exit status says whether all went as it should.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import quantiles

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.async_http import send, whole
from support.resources import resident_bytes

from stress.serving import (
    PATH,
    answered_alone,
    conversations,
    growth,
    left_behind,
    server,
    soak,
)

OTHERS = 4
HEARTBEAT = 2.0
"""Seconds that any plain request may take, however busy the server is."""

DEADLOCK = 30.0
"""Seconds without any answer that count as one."""


def asked(text, **fields):
    """The body of a request."""
    messages = [{"role": "user", "content": text}]
    return {"model": "stories", "messages": messages, "temperature": 0} | fields


async def gaps_of_streams(port, until, gaps):
    """Stream short answers, one after another, and note the seconds between their pieces."""
    while not until.is_set():
        reader, writer = await send(
            port, PATH, asked("Tell me about a dog.", max_tokens=100, stream=True)
        )
        last = None
        async for line in reader:
            if line.startswith(b"data: {") and b'"content":"' in line:
                now = time.perf_counter()
                if last is not None:
                    gaps.append(now - last)
                last = now
        writer.close()


async def beside_others(port, process, work):
    """What ``work`` returns, the gaps of those who stream meanwhile, and the most memory."""
    until, gaps, memory = asyncio.Event(), [], []
    streams = [asyncio.create_task(gaps_of_streams(port, until, gaps)) for _ in range(OTHERS)]
    working = asyncio.create_task(work)
    while not working.done():
        memory.append(resident_bytes(process))
        await asyncio.wait([working], timeout=0.1)
    until.set()
    await asyncio.gather(*streams)
    return working.result(), gaps, max(memory)


def long(text, choices):
    """The body of an answer of 0.4 MB a choice; 24 are more than a connection holds unread."""
    return asked(
        text, stream=True, n=choices, logprobs=True, top_logprobs=20, temperature=1, seed=5
    )


def texts_of(stream):
    """The texts of a stream by their choices, the reasons for their ends, and whether it ended."""
    texts, reasons = defaultdict(str), {}
    for block in stream.split("\n\n"):
        if not block.startswith("data: {"):
            continue
        for choice in json.loads(block[6:])["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
            reasons[choice["index"]] = choice["finish_reason"]
    return texts, reasons, stream.endswith("data: [DONE]\n\n")


def p99(gaps):
    return quantiles(gaps, n=100)[98]


def stopped_reader(seconds, choices=24):
    """Rows of what came of it, and whether it is right."""

    async def read(port, stops):
        begun = time.perf_counter()
        reader, writer = await send(port, PATH, long("Tell me a story.", choices), receives=4096)
        if stops:
            await asyncio.sleep(seconds)
        status, _, text = await whole(reader, writer)
        if not stops:
            await asyncio.sleep(max(0, seconds - (time.perf_counter() - begun)))
        # while nothing comes there are comments, which are no part of it
        return len(text), (status, *texts_of(text))

    async def run(port, process):
        await beside_others(port, process.pid, asyncio.sleep(1))
        reading = await beside_others(port, process.pid, read(port, stops=False))
        stopped = await beside_others(port, process.pid, read(port, stops=True))
        left, _ = await left_behind(port)
        _, unread = await send(port, PATH, long("Tell me a tale.", choices), receives=4096)
        await asyncio.sleep(1)
        begun = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(process.wait, 30)
        unread.transport.abort()
        return reading, stopped, left, status, time.perf_counter() - begun

    with server() as (port, process):
        reading, stopped, left, status, ended = asyncio.run(run(port, process))
    ((_, said), gaps, memory), ((size, said_late), gaps_late, memory_late) = reading, stopped
    rows = {
        "its answer": f"{size / 1e6:.1f} MB after {seconds:.0f} s, whole and the same:"
        f" {said_late == said}",
        "others": f"p99 gap {1e3 * p99(gaps_late):.1f} ms, beside a reader {1e3 * p99(gaps):.1f}"
        f" ms; {len(gaps_late)} and {len(gaps)} pieces",
        "memory": f"{memory_late / 1e6:.0f} MB at most, beside a reader {memory / 1e6:.0f} MB",
        "left behind": str(left),
        "SIGTERM": f"ended after {ended:.1f} s with {status}, one client reading nothing",
    }
    is_right = said_late == said and said[-1] and not any(left.values()) and ended < 6
    return rows, is_right and p99(gaps_late) < 2 * p99(gaps) + 0.01


async def heartbeats(port, slowest):
    """Ask for what is always there, ten times a second; note the slowest answer."""
    while True:
        begun = time.perf_counter()
        await whole(*await send(port, "/health"))
        slowest.append(time.perf_counter() - begun)
        await asyncio.sleep(0.1)


async def with_heartbeats(port, work):
    """What ``work`` returns, and the slowest heartbeat."""
    slowest = []
    beating = asyncio.create_task(heartbeats(port, slowest))
    try:
        return await work, max(slowest)
    finally:
        beating.cancel()


async def kv_bytes(port):
    """Bytes of KV caches: in use, kept and allowed."""
    _, _, text = await whole(*await send(port, "/metrics"))
    return {
        state: int(float(value))
        for state, value in re.findall(r'kv_cache_bytes{.*state="(\w+)"} (\S+)', text)
    }


def full_cache(seconds, count=300, memory="40MB"):
    """Rows of what came of it, and whether it is right."""
    turns = conversations(count)
    right = answered_alone(turns)

    async def run(port, process):
        work = soak(
            port,
            process,
            turns,
            right,
            requests=10**9,
            at_once=16,
            seconds=seconds,
            leaving=(None,),
        )
        (seen, slowest) = await with_heartbeats(port, asyncio.wait_for(work, seconds + DEADLOCK))
        return seen, slowest, await kv_bytes(port), (await left_behind(port))[0]

    with server("--memory", memory) as (port, process):
        seen, slowest, cache, left = asyncio.run(run(port, process.pid))
    full = cache["kept"] / cache["budget"]
    rows = {
        "requests": f"{seen.statuses.total()} in {seconds:.0f} s {dict(seen.statuses)}",
        "foreign texts": f"{len(seen.wrong)} {seen.wrong[:2]}",
        "broken": f"{len(seen.broken)} {seen.broken[:2]}",
        "prefix cache": f"{cache['kept'] / 1e6:.1f} of {cache['budget'] / 1e6:.1f} MB kept",
        "heartbeat": f"{1e3 * slowest:.0f} ms at most",
        "memory": f"second half {growth(seen.memory) / 1e3:+.1f} KB/s",
        "left behind": str(left),
    }
    is_right = not seen.wrong and not seen.broken and not any(left.values())
    return rows, is_right and full > 0.5 and slowest < HEARTBEAT


def retry_storm(seconds, clients=64):
    """Rows of what came of it, and whether it is right."""
    choice = random.Random(0)
    counts, wrong, waits, memory = Counter(), [], [], []
    bodies = {
        text: asked(text, max_tokens=40)
        for text in (
            f"Tell me about {name} and the number {place}."
            for place, name in enumerate(("Lily", "Tom", "Ben", "Sue") * 4)
        )
    }

    async def answer_of(port, text, patience):
        """The status of an answer, its headers and body; 0 where the client has left."""
        reader, writer = await send(port, PATH, bodies[text])
        try:
            return await asyncio.wait_for(whole(reader, writer), patience)
        except TimeoutError:
            writer.close()
            return 0, "", ""

    async def client(port, kind, expected, end):
        while time.perf_counter() < end:
            text = choice.choice(list(bodies))
            begun = time.perf_counter()
            while True:
                patience = 0.2 if kind == "impatient" else DEADLOCK
                status, head, body = await answer_of(port, text, patience)
                counts[status] += 1
                if status == 200:
                    waits.append(time.perf_counter() - begun)
                    if json.loads(body)["choices"][0]["message"]["content"] != expected[text]:
                        wrong.append(body)
                    break
                told = re.search(r"retry-after: (\d+)", head)
                if status == 429 and not (told and json.loads(body)["error"]["message"]):
                    wrong.append(head + body)
                if status not in {0, 429} or time.perf_counter() > end:
                    break
                if kind == "polite" and told:
                    await asyncio.sleep(int(told.group(1)))
                else:
                    await asyncio.sleep(0.01)

    async def run(port, process):
        expected = {}
        for text, body in bodies.items():
            _, _, found = await whole(*await send(port, PATH, body))
            expected[text] = json.loads(found)["choices"][0]["message"]["content"]
        end = time.perf_counter() + seconds
        kinds = ("polite", "polite", "pushing", "impatient")

        async def watch():
            while time.perf_counter() < end:
                memory.append((time.perf_counter(), resident_bytes(process)))
                await asyncio.sleep(0.2)

        work = asyncio.gather(
            watch(), *(client(port, kinds[place % 4], expected, end) for place in range(clients))
        )
        _, slowest = await with_heartbeats(port, asyncio.wait_for(work, seconds + DEADLOCK))
        left, _ = await left_behind(port)
        # the storm is over: whoever asks now is answered at once
        begun = time.perf_counter()
        after = await whole(*await send(port, PATH, asked("Hello!", max_tokens=4)))
        return slowest, left, after[0], time.perf_counter() - begun

    with server("--parallel", "2", "--max-queue", "4") as (port, process):
        slowest, left, after, took = asyncio.run(run(port, process.pid))
    rows = {
        "answers": f"{counts[200]}, refused {counts[429]}, left {counts[0]}, others"
        f" { ({status: n for status, n in counts.items() if status not in {0, 200, 429}}) }",
        "wrong": f"{len(wrong)} {wrong[:2]}",
        "longest wait": f"{max(waits):.1f} s for an answer",
        "heartbeat": f"{1e3 * slowest:.0f} ms at most",
        "memory": f"second half {growth(memory) / 1e3:+.1f} KB/s",
        "left behind": str(left),
        "afterwards": f"{after} after {1e3 * took:.0f} ms",
    }
    is_right = (
        not wrong and not any(left.values()) and after == 200 and set(counts) <= {0, 200, 429}
    )
    return rows, is_right and counts[429] > 0 and slowest < HEARTBEAT


CASES = {
    "stopped-reader": stopped_reader,
    "full-cache": full_cache,
    "retry-storm": retry_storm,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    all_right = True
    for name in options.cases or CASES:
        rows, is_right = CASES[name](options.seconds)
        all_right &= is_right
        sys.stdout.write(f"{name}: {'right' if is_right else 'WRONG'}\n")
        for row, figure in rows.items():
            sys.stdout.write(f"  {row:16}{figure}\n")
    return not all_right


if __name__ == "__main__":
    sys.exit(main())
