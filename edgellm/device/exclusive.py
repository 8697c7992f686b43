"""Whose turn it is: one answer at a time, and a close that waits for arithmetic but never for whoever reads the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlx.core as mx

from edgellm.errors import ClosedError, EdgeLLMError

Item = TypeVar("Item")


class ModelLock:
    """Given to one answer from its first item to its last; others wait for it.

    Args:
        lane: what arithmetic runs on, whichever thread asks for it.
        free: called once, after ``close``, when nothing computes any more.
    """

    def __init__(self, lane: mx.Stream, free: Callable[[], None]) -> None:
        self._lane = lane
        self._free = free
        self._changed = threading.Condition()
        self._taken = False
        self._advanced_by: int | None = None
        self._computing_in: int | None = None
        self._free_afterwards = False
        self.closed = False
        self.cancelled = threading.Event()
        """Set to end the answer whose turn it is."""

    def take(self, answer: Generator[Item]) -> Generator[Item]:
        """Yield what ``answer`` yields, once it is its turn. Threads may take it in turns to ask for the next item.

        Raises:
            EdgeLLMError: this thread itself holds the turn with an answer that is unfinished; it
                would wait for ever.
            ClosedError: ``close`` was called.
        """
        with self.hold():
            try:
                while True:
                    with self.computing():
                        item = next(answer, None)
                    if item is None:
                        return
                    yield item
            finally:
                answer.close()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the turn, and give it back afterwards; errors are those of ``take``."""
        self._begin()
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within it arithmetic runs on the lane, and ``close`` waits. Raises ClosedError."""
        with self._changed:
            self.require_open()
            self._computing_in = self._advanced_by = threading.get_ident()
        try:
            with mx.stream(self._lane):
                yield
        finally:
            with self._changed:
                self._computing_in = None
                self._changed.notify_all()
            if self._free_afterwards:
                self._free()

    def close(self) -> None:
        """End the answer, wait until nothing computes, and free. From within the arithmetic, it is freed right afterwards."""
        with self._changed:
            if self.closed:
                return
            self.closed = True
            self.cancelled.set()
            self._changed.notify_all()
            if self._computing_in == threading.get_ident():
                self._free_afterwards = True
                return
            self._changed.wait_for(lambda: self._computing_in is None)
        self._free()

    def require_open(self) -> None:
        """Raise ClosedError after ``close``."""
        if self.closed:
            raise ClosedError("the model was closed")

    def _begin(self) -> None:
        with self._changed:
            if self._taken and self._advanced_by == threading.get_ident():
                raise EdgeLLMError(
                    "another stream of this model is unfinished in this thread",
                    hint="finish it, or close it with .close()",
                )
            self._changed.wait_for(lambda: self.closed or not self._taken)
            self.require_open()
            self._taken, self._advanced_by = True, threading.get_ident()
            self.cancelled.clear()
