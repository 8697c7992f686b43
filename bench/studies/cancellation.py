"""Measure how long an answer goes on after it was cancelled, in its prompt and in its text.

    python -m edgellm.bench.studies.cancellation MODEL [--prompt 1024] [--rounds 100]

One thread reads an answer, another cancels it at a random moment: of the prompt, or of the text
after it. The time is that from ``Stream.cancel`` to the last token. Figures are in milliseconds.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

from edgellm.generation.stream import Stream
from edgellm.llm import LLM
from edgellm.open_llm import load

TEXT_SECONDS = 0.5
"""Of the text, after its first token, in which it is cancelled."""


def cancel_after(stream: Stream, begun: threading.Event, seconds: float) -> float | None:
    """Return the seconds from ``cancel`` to the last token; None where it had ended before.

    Args:
        stream: is read here.
        begun: set when the part has begun in which it is cancelled.
        seconds: after ``begun``.
    """
    cancelled_at = 0.0

    def cancel() -> None:
        nonlocal cancelled_at
        begun.wait()
        time.sleep(seconds)
        cancelled_at = time.perf_counter()
        stream.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    reason = None
    for token in stream:
        reason = token.finish_reason
        if token.id is not None:
            begun.set()
    ended_at = time.perf_counter()
    begun.set()
    canceller.join()
    if reason != "cancelled":
        return None
    return ended_at - cancelled_at


def prompt_of(length: int, draw: random.Random) -> list[int]:
    """Return random tokens, which no KV cache holds."""
    return [draw.randrange(3, 1000) for _ in range(length)]


def in_prompt(llm: LLM, length: int, seconds: float, draw: random.Random) -> float | None:
    """Cancel a prompt that takes ``seconds`` at a random moment."""
    begun = threading.Event()
    stream = llm.stream(prompt_of(length, draw), max_tokens=1, on_prefill=lambda _: begun.set())
    return cancel_after(stream, begun, draw.random() * 0.95 * seconds)


def in_text(llm: LLM, draw: random.Random) -> float | None:
    """Cancel a text at a random moment after its first token."""
    stream = llm.stream(prompt_of(8, draw), max_tokens=llm.context - 8)
    return cancel_after(stream, threading.Event(), draw.random() * TEXT_SECONDS)


def measure(rounds: int, one: Callable[[], float | None]) -> list[float]:
    """Return the seconds of those rounds that were cancelled in time."""
    found = [one() for _ in range(rounds)]
    return sorted(seconds for seconds in found if seconds is not None)


def summary(part: str, seconds: Sequence[float]) -> str:
    """Return a line of figures."""
    if len(seconds) < 2:
        return f"{part}: too few were cancelled before their end; use a longer --prompt"
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    figures = (statistics.median(seconds), p99, seconds[-1])
    p50, p99, worst = (1000 * figure for figure in figures)
    return f"{part}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms of {len(seconds)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m edgellm.bench.studies.cancellation",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("model", help="a folder, a Hub id or a bundled name")
    parser.add_argument("--memory", help="the budget, as load takes it")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=100, help="answers of each part")
    options = parser.parse_args(arguments)
    draw = random.Random(0)
    with load(options.model, memory=options.memory, threads=options.threads) as llm:
        length = min(options.prompt, llm.context - 1)
        whole = llm.generate(prompt_of(length, draw), max_tokens=1).stats.prefill_seconds
        sys.stdout.write(f"prompt of {length} tokens: {length / whole:.0f} tokens/s\n")
        parts = {
            "prompt": lambda: in_prompt(llm, length, whole, draw),
            "text": lambda: in_text(llm, draw),
        }
        for part, one in parts.items():
            sys.stdout.write(summary(part, measure(options.rounds, one)) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
