"""Lanes: MLX streams that any thread may compute on, one thread at a time.

MLX gives each thread a stream of its own, which it keeps when the thread is gone (on a CPU with a
system thread and 24 KB), and on which no other thread can evaluate what was left lazy. A model has
one lane instead, wherever it is used from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

_lock = threading.Lock()
_free: list[mx.Stream] = []


def acquire_stream() -> mx.Stream:
    """Return a lane that nobody uses, on the default device; new ones are made where there is none."""
    with _lock:
        device = mx.default_device()
        for number, stream in enumerate(_free):
            if stream.device == device:
                return _free.pop(number)
    return mx.new_thread_unsafe_stream(device)


def release_stream(lane: mx.Stream) -> None:
    """Leave a lane to others: MLX cannot destroy it."""
    with _lock:
        _free.append(lane)


@contextmanager
def borrowed_stream() -> Iterator[None]:
    """Compute on a lane for a while. What others are to use must be evaluated within."""
    lane = acquire_stream()
    try:
        with mx.stream(lane):
            yield
    finally:
        release_stream(lane)
