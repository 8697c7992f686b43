"""The worker of a turn: has Locust do what it is told once, sends the figures, and ends.

It does not read its orders as other workers do: gevent, which Locust stands on, turns threads into
tasks of one, and none of these may wait for standard input.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict

from edgellm.bench.worker.protocol import (
    Message,
    Send,
    end_at_once,
    report_errors,
    stdout_channel,
)
from edgellm.files.strict_json import loads_strict


def main() -> None:
    """Read the order, do it, and end; end at once where the bench does."""
    import locust  # noqa: F401  # first: it replaces the sockets and threads that others import
    from gevent import get_hub

    send = stdout_channel()
    order = loads_strict(sys.stdin.readline())
    get_hub().threadpool.spawn(_end_with_the_bench)
    with report_errors(send):
        _load(order, send)
    sys.stderr.flush()
    os._exit(0)  # the thread that watches standard input would be waited for


def _load(order: Message, send: Send) -> None:
    """Warm the server up, send the load that ``order`` says, and send the turn's figures."""
    from edgellm.bench.serving.users import run_turn, warm_up

    first = warm_up(order)
    send({"failure": first.failure})
    if first.failure is None:
        send(asdict(run_turn(order)))


def _end_with_the_bench() -> None:
    """Wait in a thread of the system's until standard input ends, and end with it."""
    while os.read(0, 4096):
        pass
    end_at_once()


if __name__ == "__main__":
    main()
