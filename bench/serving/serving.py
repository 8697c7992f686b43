"""Load servers in turns, each by a process of its own, and make records of what they do."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.serving import ServingRecord
from edgellm.bench.serving.load import Level, Load, Server
from edgellm.bench.serving.turn import Turn, joined, thinned
from edgellm.bench.worker.process import WorkerProcess
from edgellm.bench.worker.protocol import error_sentence
from edgellm.bench.worker.status import Status, StatusCallback
from edgellm.errors import BackendError

WORKER = (sys.executable, "-m", "edgellm.bench.serving.worker")

START_SECONDS = 60.0
"""Time for a worker to start, beyond that of its requests."""

PROMPTS_OF_A_TURN = 1_000_000
"""Numbers of prompts between two turns, so that none is asked twice."""


def measure_serving(
    servers: Sequence[Server], load: Load, *, progress: StatusCallback = lambda _: None
) -> Generator[ServingRecord]:
    """Yield a record for each level and server, when the turns of that level are over.

    The servers have their turns one after the other at each level, the first of a round last in
    the next, so that a machine that slows down slows them all. A failure becomes a record too.
    """
    total = len(load.levels) * load.turns * len(servers)
    begun = time.time_ns() // PROMPTS_OF_A_TURN
    done = 0
    for level in load.levels:
        outcomes: dict[str, list[Turn | BackendError]] = {server.name: [] for server in servers}
        for number in range(load.turns):
            first_prompt = (begun + done) * PROMPTS_OF_A_TURN
            in_turn = servers[:: -1 if number % 2 else 1]
            for server in in_turn:
                doing = f"{load.test}, turn {number + 1} of {load.turns}"
                progress(Status(done + 1, total, f"{server.name}, {level}", doing))
                outcomes[server.name].append(_turn(server, load, level, number, first_prompt))
                done += 1
        for server in servers:
            yield _record(server, load, level, outcomes[server.name])


def _turn(
    server: Server, load: Load, level: Level, number: int, first_prompt: int
) -> Turn | BackendError:
    """Return what a server's turn has shown, or why it has not."""
    seconds = load.duration + load.timeout
    if load.requests is not None:
        seconds = load.timeout * (1 + load.requests / level.users)
    if load.spawn_rate is not None:
        seconds += level.users / load.spawn_rate
    order = asdict(load) | asdict(server) | asdict(level)
    del order["levels"]
    order |= {"first_prompt": first_prompt, "seed": load.seed + number}
    try:
        with WorkerProcess(command=WORKER, timeout=START_SECONDS + seconds) as worker:
            worker.send(order)
            failure = worker.receive()["failure"]
            if failure is not None:
                return BackendError(
                    f"the first request failed: {failure}",
                    hint="is the server running, and the URL and the model right?",
                )
            return Turn(**worker.receive())
    except BackendError as error:
        return error


def _record(
    server: Server, load: Load, level: Level, outcomes: Sequence[Turn | BackendError]
) -> ServingRecord:
    turns = [outcome for outcome in outcomes if isinstance(outcome, Turn)]
    errors = [outcome for outcome in outcomes if not isinstance(outcome, Turn)]
    test = load.test
    if level.rate is not None:
        test = f"{test} at {level.rate:g}/s"
    record = ServingRecord(
        model=server.model,
        backend=server.name,
        device=server.url.partition("//")[2].partition("/")[0],
        test=test,
        environment=environment(),
        batch=level.users,
        url=server.url,
        rate=level.rate,
        spawn_rate=load.spawn_rate,
        max_tokens=load.max_tokens,
    )
    if errors:
        return replace(record, error=error_sentence(errors[0]))
    return replace(record, **_figures(turns))


def _figures(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return the fields of a record that hold what was measured."""
    whole = joined(turns)
    error = None
    if not whole.latency_seconds:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in whole.failures.items())
        error = f"no request was answered: {kinds or 'the turn was too short'}"
    prompt_tokens = None
    if whole.prompt_tokens:
        prompt_tokens = round(median(whole.prompt_tokens))
    return {
        "tokens": round(whole.tokens / len(turns)),
        "seconds": tuple(turn.seconds for turn in turns),
        "turn_tokens": tuple(turn.tokens for turn in turns),
        "finished": whole.finished,
        "first_token_seconds": tuple(whole.first_token_seconds),
        "latency_seconds": tuple(whole.latency_seconds),
        "answer_tokens": tuple(whole.answer_tokens),
        "gap_seconds": thinned(whole.gap_seconds),
        "prompt_tokens": prompt_tokens,
        "finish_reasons": dict(whole.finish_reasons),
        "failures": dict(whole.failures),
        "tokens_counted": _counter(whole),
        "client_seconds": whole.client_seconds,
        "error": error,
    }


def _counter(turn: Turn) -> str | None:
    """Return who has counted the tokens of a turn's answers."""
    if not turn.latency_seconds:
        return None
    if turn.counted_by_server == len(turn.latency_seconds):
        return "server"
    if turn.counted_by_server:
        return "both"
    return "pieces"
