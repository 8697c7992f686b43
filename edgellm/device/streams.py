"""A pool of MLX streams that any thread may compute on, one thread at a time.

MLX gives each thread a stream of its own, which it keeps when the thread is gone (on a CPU with a
system thread and 24 KB), and on which no other thread can evaluate what was left lazy. A model has
one stream instead, wherever it is used from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from edgellm.device.forks import MLX_USE

_lock = threading.Lock()
_unused: list[mx.Stream] = []


def acquire_stream() -> mx.Stream:
    """Return an unused stream on the default device; make one where there is none.

    Raises:
        BackendError: MLX was in use before this process was forked.
    """
    MLX_USE.require_own_process()
    with _lock:
        device = mx.default_device()
        for number, stream in enumerate(_unused):
            if stream.device == device:
                return _unused.pop(number)
    return mx.new_thread_unsafe_stream(device)


def release_stream(stream: mx.Stream) -> None:
    """Give a stream back to the pool: MLX cannot destroy it."""
    with _lock:
        _unused.append(stream)


@contextmanager
def borrowed_stream() -> Iterator[None]:
    """Compute on a stream of the pool within; evaluate there what others are to use."""
    stream = acquire_stream()
    try:
        with mx.stream(stream):
            yield
    finally:
        release_stream(stream)
