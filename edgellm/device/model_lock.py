"""A lock on a model: one object computes at a time, first come first served.

Each has a place (``place.py``). A stream that nobody reads gives way to others that wait, and takes
its place in line when it is asked again. While its reader is only late, whoever waits computes its
next steps: in a crowd all threads of a pool may wait, and the readers have to wait for a thread.
Closing waits for the step that is being computed, never for a reader.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

import mlx.core as mx

from edgellm.device.forks import refuse
from edgellm.device.place import Occupant, Place, Standing, this_thread
from edgellm.device.quitting import quit_at_exit
from edgellm.errors import ClosedError, EdgeLLMError

LOOK_SECONDS = 0.005
"""Time between two looks of the first in line at the place before it."""

QUIT_SECONDS = 5.0
"""Time for which the end of the process waits for a step."""


class ModelLock:
    """Held by one place at a time; steps are computed one by one, each claimed by a thread.

    Args:
        stream: all steps are computed on it, whichever thread asks for them.
        free: called once, after ``close``, when no step is being computed any more.

    Attributes:
        mutex: guards all fields, and those of places.
        closed: whether ``close`` was called.
    """

    def __init__(self, stream: mx.Stream, free: Callable[[], None]) -> None:
        # signals' handlers and finalizers may come in the middle of what it guards
        self.mutex: threading.RLock = threading.RLock()
        self.closed: bool = False
        self._stream = stream
        self._free = free
        self._process = os.getpid()
        self._step_ended = threading.Condition(self.mutex)
        self._computing_thread: object = None
        self._holder: Place | None = None
        self._line: deque[Place] = deque()
        self._places: WeakSet[Place] = WeakSet()
        self._is_to_be_freed = False
        self._quitting_thread: object = None
        quit_at_exit(self)

    def place(self, occupant: Occupant | None = None, *, deadline: float | None = None) -> Place:
        """Return a new place; it is not yet in line. Arguments are those of ``Place``."""
        place = Place(self, occupant, deadline)
        with self.mutex:
            self._places.add(place)
        return place

    def cancel(self) -> None:
        """Cancel all places that exist; from any thread."""
        with self.mutex:
            places = list(self._places)
        for place in places:
            place.cancel()

    @contextmanager
    def acquire(self, place: Place | None = None) -> Iterator[Place]:
        """Wait for the model, and hold it within, without steps of an occupant.

        Args:
            place: without an occupant; None for a new one.

        Raises:
            EdgeLLMError: this thread computes a step, or has a batch that holds the model; or the
                place was cancelled before it came to the model.
            ClosedError: ``close`` was called.
            BackendError: the model was loaded before this process was forked.
        """
        if place is None:
            place = self.place()
        try:
            if not self.advance(place):
                raise EdgeLLMError("this was cancelled before it began", hint="ask for it again")
            yield place
        finally:
            place.leave()

    def advance(self, place: Place) -> bool:
        """Wait until a place is at the model, and let its occupant compute a step.

        Returns:
            Whether it may go on: false where it was cancelled or closed, or its time is over.

        Raises:
            EdgeLLMError, ClosedError, BackendError: as ``acquire`` does.
        """
        self._require_own_process()
        self.require_outside_step()
        thread = this_thread()
        try:
            while True:
                claim = self._claim(place, thread)
                if claim is None:
                    return place.is_ready or place.keep_going()
                served, gives_way = claim
                with self._claimed():
                    if gives_way:
                        self._dismiss(served)
                    else:
                        served.step()
                if served is place:
                    return True
        except ClosedError:
            self._wait_at_exit()
            raise
        finally:
            self._leave_line(place)

    @contextmanager
    def computing(self, place: Place) -> Iterator[None]:
        """Compute a step within, for a place that has no occupant and is at the model.

        Raises:
            EdgeLLMError, ClosedError, BackendError: as ``acquire`` does.
        """
        self._require_own_process()
        self.require_outside_step()
        self.require_open()
        with self.mutex:
            self._require_open()
            assert self._holder is place, "it was acquired"
            self._computing_thread = this_thread()
        try:
            with self._claimed():
                yield
        except ClosedError:
            self._wait_at_exit()
            raise

    def leave(self, place: Place) -> None:
        """Take a place from the model, after the step that is being computed.

        Called from within that step, it returns at once: the end of the step does it, where the
        place is done.
        """
        if os.getpid() != self._process:
            return
        thread = this_thread()
        with self.mutex:
            while self._holder is place and self._computing_thread is not None:
                if self._computing_thread is thread:
                    return
                self._step_ended.wait()
            if self._holder is not place:
                return
            self._computing_thread = thread
        with self._claimed():
            self._dismiss(place)

    def abandon(self, place: Place) -> None:
        """Take a place that nobody can read any more from the model, without waiting.

        A step that is being computed takes it at its end.
        """
        if os.getpid() != self._process:
            return
        with self.mutex:
            if self._holder is not place or self._computing_thread is not None:
                return
            self._computing_thread = this_thread()
        with self._claimed():
            self._dismiss(place)

    def close(self) -> None:
        """End everything, wait for the step that is being computed, and free.

        Called from within a step, which cannot wait for its own end, it returns at once; the end
        of the step then frees. In a forked process it waits for nobody, and frees nothing.
        """
        if os.getpid() != self._process:
            self.closed = True
            return
        self._close(patience=None)

    def quit(self) -> None:
        """Close at the end of the process.

        Threads that ask for more wait for the end, as daemons do: an error in one would be shown.
        A step that does not end in time is left alone, and nothing is freed.
        """
        if os.getpid() == self._process:
            self._quitting_thread = this_thread()
            self._close(patience=QUIT_SECONDS)

    def _close(self, *, patience: float | None) -> None:
        thread = this_thread()
        with self.mutex:
            if self.closed:
                return
            self.closed = True
            for place in list(self._places):
                place.changed.notify_all()
            if self._computing_thread is thread:
                self._is_to_be_freed = True
                return
            if not self._step_ended.wait_for(lambda: self._computing_thread is None, patience):
                return
            # and it stays so: no step begins any more
            self._computing_thread = thread
        with self._claimed():
            self._is_to_be_freed = True

    def require_open(self) -> None:
        """Raise ClosedError after ``close``."""
        self._wait_at_exit()
        self._require_open()

    def require_outside_step(self) -> None:
        """Raise EdgeLLMError in the thread that computes a step now: it would wait for itself."""
        if self._computing_thread is this_thread():
            raise EdgeLLMError(
                "this thread is computing a step of this model",
                hint="ask for another answer after on_prefill has returned",
            )

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedError("the model was closed")

    def _wait_at_exit(self) -> None:
        """Wait for the end of the process, if it has come; never while the mutex is held."""
        if self._quitting_thread not in (None, this_thread()):
            threading.Event().wait()

    def _claim(self, place: Place, thread: object) -> tuple[Place, bool] | None:
        """Wait until a place is at the model, or one before it has to be served; claim that step.

        Returns:
            Which place, and whether it is to give way instead of computing; None where there is
            nothing to wait for.
        """
        with self.mutex:
            while True:
                # also one that had the model when it came, and was made to give way since
                if self._holder is not place and place not in self._line:
                    self._line.append(place)
                self._require_open()
                if place.is_ready or place.is_done or not place.keep_going():
                    return None
                if self._computing_thread is None:
                    # claimed first of all: a finalizer that comes now leaves the holder alone
                    self._computing_thread = thread
                    served = None
                    try:
                        served = self._served_next(place, thread)
                    finally:
                        if served is None:
                            self._computing_thread = None
                    if served is not None:
                        return served
                place.wait(self._look_after(place))

    def _served_next(self, place: Place, thread: object) -> tuple[Place, bool] | None:
        """Return what ``_claim`` does, for now; None where that is nothing."""
        if self._holder is None and self._line[0] is place:
            self._line.popleft()
            self._holder = place
            self._wake_next()  # from now on it looks at this place
        holder = self._holder
        if holder is place:
            return place, False
        if holder is None or self._line[0] is not place:
            return None
        standing = holder.standing(thread)
        if standing is Standing.BUSY:
            return None
        return holder, standing is Standing.UNREAD

    def _look_after(self, place: Place) -> float | None:
        """Return when a waiting place has to look again by itself; None: somebody wakes it."""
        is_next = bool(self._line) and self._line[0] is place
        if is_next and self._holder is not None and self._holder.occupant is not None:
            return LOOK_SECONDS
        return None

    def _leave_line(self, place: Place) -> None:
        with self.mutex:
            if place in self._line:
                self._line.remove(place)
                self._wake_next()

    def _wake_next(self) -> None:
        if self._line:
            self._line[0].changed.notify_all()

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Compute a claimed step within."""
        try:
            with mx.stream(self._stream):
                yield
        finally:
            self._end_step()

    def _end_step(self) -> None:
        with self.mutex:
            try:
                holder = self._holder
                if holder is not None and (holder.is_done or self.closed):
                    self._dismiss(holder)
            finally:
                self._computing_thread = None
                self._step_ended.notify_all()
                if self._holder is not None:
                    self._holder.changed.notify_all()
                else:
                    self._wake_next()
        # no step begins once it is closed, so this was the last one
        if self._is_to_be_freed:
            self._is_to_be_freed = False
            self._free()

    def _dismiss(self, place: Place) -> None:
        """Let the place at the model give way. The caller has claimed a step."""
        try:
            if place.occupant is not None:
                place.occupant.give_way()
        finally:
            with self.mutex:
                self._holder = None
                # its reader may wait for this step, which somebody else has computed
                place.changed.notify_all()

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            self.require_open()
            refuse("the model was loaded")
