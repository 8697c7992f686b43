"""Signals that wait until something is done whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Generator[None]:
    """Hold Python's handlers of signals that stop a program until the block has ended.

    They run then, in the order in which their signals came. In threads other than the main one no
    handler ever runs, and nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in HELD}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    try:
        for number in held:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for came_as, frame in came:
            held[signal.Signals(came_as)](came_as, frame)
