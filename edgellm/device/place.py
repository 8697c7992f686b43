"""A place in front of a model: of a stream, an engine or a measurement, never of a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, Protocol

from edgellm.errors import EdgeLLMError
from edgellm.setting_values import number

if TYPE_CHECKING:
    from edgellm.device.model_lock import ModelLock

IDLE_SECONDS = 0.05
"""Without a reader for so long, a stream gives way to others that wait.

A reader of a thread pool may be late because all its threads wait for this very stream.
"""

MAX_IDLE_SECONDS = 1.0
"""The same, at most, of a stream to which it costs more to come back."""

MAX_TIMEOUT = 1e6
"""Seconds that a lock can be waited for, and more than an answer takes."""

KeepGoing = Callable[[], bool]


class Occupant(Protocol):
    """The owner of a place that may give way between two steps, and go on later."""

    @property
    def is_ready(self) -> bool:
        """Whether there is something to read."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether there are no more steps."""
        ...

    @property
    def step_seconds(self) -> float:
        """The time of the last step."""
        ...

    @property
    def return_seconds(self) -> float:
        """The time that it took to come back after it gave way."""
        ...

    def step(self, keep_going: KeepGoing) -> None:
        """Compute what is to be read next, or a part of it where ``keep_going`` says no."""
        ...

    def give_way(self) -> None:
        """Let go of what others need of the model."""
        ...


class Standing(Enum):
    """How a place is used, as seen by those that wait for it."""

    BUSY = auto()
    """It is read, or has been until just now."""

    LATE = auto()
    """Its reader is late: another that waits may compute its next step meanwhile."""

    UNREAD = auto()
    """Nobody reads it: it is to give way."""


class Place:
    """A place in line, or at the model; ``ModelLock.place`` makes it.

    Args:
        lock: the lock of the model.
        occupant: gives way where nobody reads it; None: the place is held until ``leave``.
        deadline: the end of its time, by ``time.monotonic``; None: there is none.

    Attributes:
        occupant: as above.
        cancelled: set by ``cancel``; whoever holds the place for several may clear it.
        closed: set by ``close``.
        changed: notified when this place has to look again.
    """

    def __init__(self, lock: ModelLock, occupant: Occupant | None, deadline: float | None) -> None:
        self.occupant = occupant
        self.cancelled: bool = False
        self.closed: bool = False
        self.changed: threading.Condition = threading.Condition(lock.mutex)
        self._lock = lock
        self._deadline = deadline
        self._reader: object = None
        """The thread that has asked for all steps so far; None where several have."""
        self._has_readers = False
        self._is_read = False
        self._read_at = 0.0

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def is_ready(self) -> bool:
        """Whether there is something to read."""
        return self.occupant is not None and self.occupant.is_ready

    @property
    def is_done(self) -> bool:
        """Whether nothing more is computed in this place."""
        return self.closed or (self.occupant is not None and self.occupant.has_ended)

    @property
    def end_reason(self) -> Literal["cancelled", "timeout"]:
        """Why it has to end, where ``keep_going`` says no."""
        if self.cancelled:
            return "cancelled"
        return "timeout"

    def keep_going(self) -> bool:
        """Return whether it is neither cancelled nor closed, and has time."""
        return not (self.cancelled or self.closed or self._lock.closed or self.is_late)

    def cancel(self) -> None:
        """End what is computed or waited for in this place; from any thread."""
        with self._lock.mutex:
            self.cancelled = True
            self.changed.notify_all()

    def close(self) -> None:
        """End it for good, and give the place up; from any thread, and twice.

        A step that is being computed is waited for; called from within it, this returns at once.
        """
        with self._lock.mutex:
            self.closed = True
            self.changed.notify_all()
        self.leave()

    def leave(self) -> None:
        """Give the place up, after the step that is being computed."""
        self._lock.leave(self)

    def abandon(self) -> None:
        """End it for good, for a finalizer: it waits for nothing."""
        self.closed = True
        self._lock.abandon(self)

    def step(self) -> None:
        """Let the occupant, if there is one, compute a step. The caller has claimed it."""
        if self.occupant is not None:
            self.occupant.step(self.keep_going)

    def require_outside_step(self) -> None:
        """Raise EdgeLLMError where this thread computes a step of the model."""
        self._lock.require_outside_step()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read within what the occupant has computed, or ``advance`` it."""
        self._note_reader()
        self._is_read = True
        try:
            yield
        finally:
            self._read_at = time.monotonic()
            self._is_read = False

    def advance(self) -> bool:
        """Let the occupant compute a step, when it is its turn.

        Returns:
            Whether it may go on: false where it was cancelled or closed, or its time is over.

        Raises:
            ClosedError: the model was closed.
            BackendError: the model was loaded before this process was forked.
        """
        return self._lock.advance(self)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute a step within, in a place that is held: on the model's stream.

        Raises:
            ClosedError: the model was closed.
            BackendError: the model was loaded before this process was forked.
        """
        self._note_reader()
        with self._lock.computing(self):
            yield

    def wait(self, look_after: float | None) -> None:
        """Wait until something changes, or for this many seconds. The caller holds the mutex."""
        if self._deadline is not None:
            left = max(0.0, self._deadline - time.monotonic())
            look_after = min(left, look_after or left)
        self.changed.wait(look_after)

    def standing(self, thread: object) -> Standing:
        """Return how this place, which is held, stands to ``thread``, which waits for it.

        Raises:
            EdgeLLMError: the thread would wait for itself.
        """
        occupant = self.occupant
        is_own = self._has_readers and self._reader is thread
        if occupant is None:
            if is_own:
                raise EdgeLLMError(
                    "this thread has unfinished sequences of an engine of this model",
                    hint="step the engine to their end, or close it with .close()",
                )
            return Standing.BUSY
        if self._is_read:
            return Standing.BUSY
        patience = max(IDLE_SECONDS, min(occupant.return_seconds, MAX_IDLE_SECONDS))
        if is_own or not self.keep_going() or time.monotonic() - self._read_at >= patience:
            return Standing.UNREAD
        if occupant.step_seconds > IDLE_SECONDS:
            return Standing.BUSY
        return Standing.LATE

    def _note_reader(self) -> None:
        thread = this_thread()
        if not self._has_readers:
            self._has_readers = True
            self._reader = thread
        elif self._reader is not thread:
            self._reader = None


def deadline_after(timeout: float | None) -> float | None:
    """Return a place's deadline, this many seconds from now. Raises ConfigError."""
    if timeout is None:
        return None
    return time.monotonic() + number("timeout", timeout, 0, MAX_TIMEOUT, low_excluded=True)


class _OfThisThread(threading.local):
    """A token for each thread."""

    def __init__(self) -> None:
        self.token = object()


_of_this_thread = _OfThisThread()


def this_thread() -> object:
    """Return what no other thread has or will have while somebody keeps it.

    Identifiers are used again when their thread has ended, and so are the objects that
    ``threading`` makes for threads which are not its own.
    """
    return _of_this_thread.token
