"""Messages between the bench and its workers: one JSON object per line.

Every worker speaks it: orders come in on standard input, the first of which says what to load;
answers go out on standard output, and an answer with ``error`` and ``hint`` says why there is no
other. The worker's side is here; the bench's side is ``process.WorkerProcess``::

    bench                                            worker
    worker = WorkerProcess(command=..., timeout=60)  run_worker(serve), and that calls
    worker.send({"model": "stories"})                serve(order, orders, send):
    worker.receive()                                     model = load(order["model"])
                                                         send({"device": model.device})
    worker.send({"tokens": 8})                           for order in orders: ...
    worker.close()                                   # standard input ends, and so does the worker
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from edgellm.errors import BackendError, EdgeLLMError

Message = Mapping[str, Any]
Send = Callable[[Message], None]
Serve = Callable[[Message, Iterator[Message], Send], None]
"""A worker's work: the order that says what to load, the ones that follow, and what answers."""

MAX_WORDS = 400
"""Characters of somebody else's error message."""


def stdout_channel() -> Send:
    """Take standard output for messages, and return what sends one.

    What libraries print to standard output from here on goes to standard error.
    """
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def send(message: Message) -> None:
        with suppress(BrokenPipeError):  # the bench is gone; standard input is about to end
            channel.write(json.dumps(message) + "\n")

    return send


def orders() -> Iterator[dict[str, Any]]:
    """Yield the messages of standard input as they come, until it ends.

    Where it ends while the last one is worked on, the process ends at once, with all that it has
    started: the bench is gone, or wants no answer any more.
    """
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        if lines.unfinished_tasks:
            end_at_once()
        lines.put(None)

    reader = threading.Thread(target=read, name="edgellm-orders", daemon=True)
    reader.start()
    while (line := lines.get()) is not None:
        yield json.loads(line)
        lines.task_done()


def end_at_once() -> None:
    """Kill this process, and those that it has started where they are a group of their own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def run_worker(serve: Serve) -> None:
    """Follow the orders of standard input until it ends; an error ends the worker, and is sent."""
    send = stdout_channel()
    messages = orders()
    with report_errors(send):
        serve(next(messages), messages, send)


@contextmanager
def report_errors(send: Send) -> Iterator[None]:
    """Send an error of the ``with`` block, whoever raised it, as a message."""
    try:
        yield
    except EdgeLLMError as error:
        send(error_message(error))
    except MemoryError:
        send(
            error_message(
                BackendError(
                    "there is not enough memory", hint="end other programs, or take a smaller model"
                )
            )
        )
    except Exception as error:  # a foreign runtime may raise anything
        send(error_message(foreign_error(error)))


def error_message(error: EdgeLLMError) -> dict[str, Any]:
    """Return the message that stands for an error of ours."""
    return {"error": error.message, "hint": error.hint}


def error_sentence(error: EdgeLLMError) -> str:
    """Return an error and its hint as the ``error`` of a record has them."""
    if error.hint is None:
        return error.message
    return f"{error.message} (hint: {error.hint})"


def foreign_error(error: Exception) -> BackendError:
    """Return somebody else's error as one of ours, on one line."""
    kind, words = type(error).__name__, " ".join(str(error).split())[:MAX_WORDS]
    if not words:
        return BackendError(kind)
    return BackendError(f"{kind}: {words}")
