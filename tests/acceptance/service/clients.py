"""A thousand clients of examples/service.py, a third of whom leave; run it to see the figures.

Plain sockets of asyncio: a client reads its answer to the end, or leaves while its prompt is
computed, or in mid-answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, quantiles

import edgellm

PROMPTS = (
    "Once upon a time",
    "The dog",
    "Lily had a red ball. One day",
    "Tom and Ben were in the garden. " * 8,
    "A bird sat in a tree and sang. " * 16,
)
LENGTHS = (4, 12, 30)
REQUESTS = [(prompt, length) for length in LENGTHS for prompt in PROMPTS]
"""What is asked: a prompt and its ``max_tokens``."""

LEAVING = ("prompt", "answer", None, None, None, None)
"""When a client leaves; most never do."""

LARGEST = max(range(len(REQUESTS)), key=lambda place: (len(REQUESTS[place][0]), REQUESTS[place][1]))
"""The place of the request that needs the most memory."""


@dataclass(slots=True)
class Answer:
    """What a client saw.

    Attributes:
        request: its place in ``REQUESTS``.
        leaves: when it was to leave.
        status: of HTTP; None where it left before.
        text: that it read.
        is_whole: whether it read to the end.
        first_seconds: until the first text.
    """

    request: int
    leaves: str | None
    status: int | None = None
    text: str = ""
    is_whole: bool = False
    first_seconds: float | None = None


@dataclass(slots=True)
class Report:
    """What all clients saw, and what the service held meanwhile.

    Attributes:
        answers: of the clients.
        seconds: from the first client to the last.
        memory: seconds and bytes, sample by sample.
        before: what the service told of itself before the clients came, with one answer given.
        after: the same when they had left.
    """

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)
    before: dict[str, object] = field(default_factory=dict)
    after: dict[str, object] = field(default_factory=dict)

    @property
    def whole(self) -> list[Answer]:
        """Answers that were read to the end."""
        return [answer for answer in self.answers if answer.is_whole]

    @property
    def refused(self) -> list[Answer]:
        """Of clients that stayed, those who got no whole answer."""
        return [one for one in self.answers if one.leaves is None and not one.is_whole]

    @property
    def growth(self) -> float:
        """Bytes a second by which memory grew in the second half."""
        times, sizes = zip(*self.memory[len(self.memory) // 2 :], strict=True)
        return linear_regression(times, sizes).slope

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the figures, each with its name."""
        first = quantiles((one.first_seconds for one in self.whole), n=100)
        left = len(self.answers) - len(self.whole)
        tokens = sum(REQUESTS[one.request][1] for one in self.whole)
        megabytes = [size / 1e6 for _, size in self.memory]
        yield "clients", f"{len(self.answers)}, of whom {left} left and {len(self.refused)} refused"
        yield "time", f"{self.seconds:.1f} s, {len(self.answers) / self.seconds:.0f} clients/s"
        yield "tokens read to the end", f"{tokens}, {tokens / self.seconds:.0f} tokens/s"
        yield "first token", f"p50 {first[49] * 1000:.0f} ms, p99 {first[98] * 1000:.0f} ms"
        yield "memory", f"{megabytes[0]:.0f} MB before, at most {max(megabytes):.0f} MB"
        yield "memory, second half", f"{self.growth / 1000:+.0f} KB/s"
        yield "threads", f"{self.before['threads']} before, {self.after['threads']} after"


async def ask(port: int, path: str, answer: Answer, choice: random.Random) -> None:
    """Send a request, and read its answer for as long as the client stays."""
    prompt, length = REQUESTS[answer.request]
    body = json.dumps({"prompt": prompt, "max_tokens": length}).encode()
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if answer.leaves == "prompt":
            await asyncio.sleep(choice.uniform(0, 0.1))
            return
        answer.status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        stays = choice.randint(1, length)
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size + 2)
            answer.text += piece[:-2].decode()
            if answer.first_seconds is None:
                answer.first_seconds = time.perf_counter() - began
            stays -= 1
            if answer.leaves == "answer" and stays == 0:
                return
        answer.is_whole = answer.status == 200
    finally:
        writer.close()


async def ask_all(
    port: int, answers: list[Answer], *, at_once: int, path: str, choice: random.Random
) -> None:
    """Send all requests, so many at a time."""
    places = asyncio.Semaphore(at_once)

    async def client(answer: Answer) -> None:
        async with places:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError, IndexError):
                await ask(port, path, answer, choice)  # what broke off is no whole answer

    await asyncio.gather(*map(client, answers))


async def fill(port: int, *, at_once: int, path: str, choice: random.Random) -> None:
    """Let the service hold as much as it ever needs, so that later growth is what is left behind.

    Allocators keep what they once had; random clients reach the most by chance, early or late.
    """
    largest = [Answer(LARGEST, None) for _ in range(10 * at_once)]
    await ask_all(port, largest, at_once=at_once, path=path, choice=choice)


async def health(port: int) -> dict[str, object]:
    """Return what the service tells of itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    state = json.loads(body)
    assert isinstance(state, dict)
    return state


async def measure(
    port: int,
    process: int,
    *,
    clients: int = 1000,
    at_once: int = 64,
    path: str = "/",
    seed: int = 0,
) -> Report:
    """Let the clients come, and return what they and the process saw."""
    choice = random.Random(seed)
    report = Report()
    report.answers = [
        Answer(choice.randrange(len(REQUESTS)), choice.choice(LEAVING)) for _ in range(clients)
    ]
    await fill(port, at_once=at_once, path=path, choice=choice)
    report.before = await health(port)
    began = time.perf_counter()

    async def watch() -> None:
        while True:
            report.memory.append((time.perf_counter() - began, resident_bytes(process)))
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    await ask_all(port, report.answers, at_once=at_once, path=path, choice=choice)
    report.seconds = time.perf_counter() - began
    watching.cancel()
    for _ in range(100):  # the last to leave is noticed a little later
        report.after = await health(port)
        if report.after["running"] == report.after["waiting"] == 0:
            break
        await asyncio.sleep(0.1)
    return report


def resident_bytes(process: int) -> int:
    """Return the memory that a process holds."""
    if platform.system() == "Linux":
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * 4096
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) * 1024


@contextmanager
def service() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Start the service in a process of its own; return its port and the process."""
    command = [sys.executable, str(Path(__file__).with_name("app.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process
        finally:
            process.terminate()


def lone_answers() -> list[str]:
    """Return what each request is answered where nobody else asks."""
    with edgellm.load("stories") as llm:
        return [llm.generate(prompt, max_tokens=length).text for prompt, length in REQUESTS]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--path", default="/", help="/threads: LLM.stream in a pool of threads")
    options = parser.parse_args()
    with service() as (port, process):
        report = asyncio.run(
            measure(
                port,
                process.pid,
                clients=options.clients,
                at_once=options.at_once,
                path=options.path,
            )
        )
    right = lone_answers()
    for name, figure in report.rows():
        print(f"{name:24}{figure}")
    print(f"{'wrong answers':24}{sum(one.text != right[one.request] for one in report.whole)}")
    print(f"{'statuses':24}{dict(Counter(one.status for one in report.answers))}")


if __name__ == "__main__":
    main()
