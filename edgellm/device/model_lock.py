"""A lock: one generation at a time; closing waits for the running step, never for a reader."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlx.core as mx

from edgellm.device.forks import refuse
from edgellm.errors import ClosedError, EdgeLLMError

Item = TypeVar("Item")


class ModelLock:
    """Held by one generation from its first item to its last; others wait for it.

    A generation may be advanced by several threads, one after the other, so the lock belongs to no
    thread. While it is held, steps are computed one by one within ``computing``.

    Args:
        stream: all steps are computed on it, whichever thread asks for them.
        free: called once, after ``close``, when no step is being computed any more.
    """

    def __init__(self, stream: mx.Stream, free: Callable[[], None]) -> None:
        self._stream = stream
        self._free = free
        # Guards the fields below, and is notified when one of them changes.
        self._changed = threading.Condition()
        self._held = False
        self._process = os.getpid()
        self._advancing_thread: object = None
        """Advanced the holder last; were it to wait for the lock, it would wait for itself."""
        self._computing_thread: object = None
        """Computes a step now."""
        self._closed_within_step = False
        self.closed = False
        self.cancelled = threading.Event()
        """Set to end the generation that holds the lock."""

    def run(self, generation: Generator[Item]) -> Generator[Item]:
        """Yield what ``generation`` yields, holding the lock from the first item to the last.

        Raises:
            EdgeLLMError: this thread has an unfinished generation that holds the lock.
            ClosedError: ``close`` was called.
            BackendError: the model was loaded before this process was forked.
        """
        with self.acquire():
            try:
                while True:
                    with self.computing():
                        item = next(generation, None)
                    if item is None:
                        return
                    yield item
            finally:
                generation.close()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait for the lock, hold it within, and release it. Raises what ``run`` raises."""
        self._wait_for_lock()
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute a step within: on the stream, and with ``close`` waiting.

        Raises:
            ClosedError: ``close`` was called.
            BackendError: the model was loaded before this process was forked.
        """
        self._require_own_process()
        with self._changed:
            self.require_open()
            self._computing_thread = self._advancing_thread = _this_thread()
        try:
            with mx.stream(self._stream):
                yield
        finally:
            with self._changed:
                self._computing_thread = None
                self._changed.notify_all()
            # No step begins once it is closed, so this is the last one.
            if self._closed_within_step:
                self._free()

    def close(self) -> None:
        """End the generation, wait until its step is computed, and free.

        Called from within a step, which cannot wait for its own end, it returns at once; the end
        of the step then frees. In a forked process it waits for nobody, and frees nothing.
        """
        if os.getpid() != self._process:
            self.closed = True
            return
        with self._changed:
            if self.closed:
                return
            self.closed = True
            self.cancelled.set()
            self._changed.notify_all()
            if self._computing_thread is _this_thread():
                self._closed_within_step = True
                return
            self._changed.wait_for(lambda: self._computing_thread is None)
        self._free()

    def require_open(self) -> None:
        """Raise ClosedError after ``close``."""
        if self.closed:
            raise ClosedError("the model was closed")

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            self.require_open()
            refuse("the model was loaded")

    def _wait_for_lock(self) -> None:
        self._require_own_process()
        thread = _this_thread()
        with self._changed:
            if self._held and self._advancing_thread is thread:
                raise EdgeLLMError(
                    "another stream of this model is unfinished in this thread",
                    hint="finish it, or close it with .close()",
                )
            self._changed.wait_for(lambda: self.closed or not self._held)
            self.require_open()
            self._held = True
            self._advancing_thread = thread
            self.cancelled.clear()


class _OfThisThread(threading.local):
    """A token for each thread."""

    def __init__(self) -> None:
        self.token = object()


_of_this_thread = _OfThisThread()


def _this_thread() -> object:
    """Return what no other thread has or will have while somebody keeps it.

    Identifiers are used again when their thread has ended, and so are the objects that
    ``threading`` makes for threads which are not its own.
    """
    return _of_this_thread.token
