"""Lanes from a machine to each of the others, over which all gather what each of them has."""

# L tokens

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from edgellm.distributed.links.lane import Kind, Lane
from edgellm.distributed.links.pulse import Pulse

Rows = npt.NDArray[np.float32]

Bounds = tuple[int, int]
"""The first column, and the one behind the last."""


class Mesh:
    """A machine's lanes to all others.

    Args:
        place: of this machine among all.
        lanes: by the places of the others.
        pulses: the heartbeats that go with them, where no others do.

    Attributes:
        is_whole: whether rows can go over it; once it is not, it is of no use any more.
        passes: how many have ended.
        gathers: how many there were.
        seconds: that they took, with the time for which others were waited for.
    """

    def __init__(self, place: int, lanes: Mapping[int, Lane], pulses: Sequence[Pulse] = ()) -> None:
        self.is_whole: bool = True
        self.passes: int = 0
        self.gathers: int = 0
        self.seconds: float = 0.0
        self._place = place
        self._lanes = dict(sorted(lanes.items()))
        self._pulses = list(pulses)

    def all_gather(self, own: Rows, columns: Sequence[Bounds]) -> Rows | None:
        """Return the columns (L, all) of all machines; None where the first one ends the pass.

        Args:
            own: columns (L, own) of this machine.
            columns: of each machine, those that it has.

        Raises:
            LaneError: a machine is gone.
        """
        begun, tokens = time.perf_counter(), len(own)
        whole = np.empty((tokens, columns[-1][1]), np.float32)
        first, stop = columns[self._place]
        whole[:, first:stop] = own
        parts: dict[int, Rows] = {}
        for place in self._lanes:
            first, stop = columns[place]
            # of one token, where it belongs
            parts[place] = whole[:, first:stop]
            if tokens > 1:
                parts[place] = np.empty((tokens, stop - first), np.float32)
        targets = {place: memoryview(part).cast("B") for place, part in parts.items()}
        if not self._exchange(Kind.ROWS, memoryview(np.ascontiguousarray(own)).cast("B"), targets):
            return None
        if tokens > 1:
            for place, part in parts.items():
                whole[:, slice(*columns[place])] = part
        self.gathers += 1
        self.seconds += time.perf_counter() - begun
        return whole

    def collect(self, own: Rows, columns: Sequence[Bounds]) -> Rows:
        """Return the columns (L, all) of all machines on the first one; elsewhere, what is its own.

        Args:
            own: columns (L, own) of this machine.
            columns: of each machine, those that it has.

        Raises:
            LaneError: a machine is gone.
        """
        begun, tokens = time.perf_counter(), len(own)
        if self._place:
            body = memoryview(np.ascontiguousarray(own)).cast("B")
            self._exchange(Kind.ROWS, body, {0: _NOTHING})
            return own
        parts = {
            place: np.empty((tokens, columns[place][1] - columns[place][0]), np.float32)
            for place in self._lanes
        }
        targets = {place: memoryview(part).cast("B") for place, part in parts.items()}
        self._exchange(Kind.ROWS, _NOTHING, targets)
        parts[0] = own
        self.gathers += 1
        self.seconds += time.perf_counter() - begun
        return np.concatenate([parts[place] for place in range(len(columns))], axis=1)

    def end(self) -> None:
        """End a pass: all that was received is from the others. Raises LaneError."""
        self._exchange(Kind.END, _NOTHING, dict.fromkeys(self._lanes, _NOTHING))
        self.passes += 1

    def stop(self, tokens: int, columns: Sequence[Bounds]) -> None:
        """End a pass in the place of the gather that the others wait for. Raises LaneError."""
        widths = {place: columns[place][1] - columns[place][0] for place in self._lanes}
        nowhere = {
            place: memoryview(bytearray(4 * tokens * width)) for place, width in widths.items()
        }
        self._exchange(Kind.STOP, _NOTHING, nowhere)

    @contextmanager
    def in_pass(self) -> Iterator[None]:
        """A block that all machines go through; where it is left early, none waits for the rest."""
        try:
            yield
        except BaseException:
            self.fail("the pass was broken off")
            raise

    def fail(self, reason: str) -> None:
        """End all lanes, from any thread: whoever waits gets an error that says why."""
        self.is_whole = False
        for lane in self._lanes.values():
            lane.fail(reason)

    def close(self) -> None:
        """End all connections; nobody waits for them any more."""
        self.is_whole = False
        for pulse in self._pulses:
            pulse.close()
        for lane in self._lanes.values():
            lane.close()

    def _exchange(self, kind: Kind, own: memoryview, targets: Mapping[int, memoryview]) -> bool:
        """Send the same to those that ``targets`` names, and receive theirs.

        Returns whether all sent their rows.

        Whatever goes wrong in between, also Ctrl-C, the lanes are of no use afterwards.
        """
        lanes = [self._lanes[place] for place in targets]
        with self.in_pass():
            for lane, target in zip(lanes, targets.values(), strict=True):
                lane.exchange(kind, own, target)
            waiting = [lane for lane in lanes if not lane.advance()]
            for lane in lanes:
                lane.settle()
            while waiting := [lane for lane in waiting if not lane.advance()]:
                _sleep(waiting)
        return all(lane.received == Kind.ROWS for lane in lanes)


_NOTHING = memoryview(bytearray())


def _sleep(waiting: Sequence[Lane]) -> None:
    """Sleep until one of the lanes can go on."""
    poll = select.poll()
    for lane in waiting:
        poll.register(lane, select.POLLIN | (select.POLLOUT if lane.is_sending else 0))
    poll.poll()
