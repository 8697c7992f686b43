"""Lanes from a machine to each of the others, over which all gather what each of them has.

A gather is begun by the native code that has made a machine's own columns, and ended by that which
needs all of them. While it is on its way, it is hashed here, and the next one is prepared.
"""

# L tokens

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from edgellm.distributed.links.lane import Kind, Lane, head_of
from edgellm.distributed.links.pulse import Pulse
from edgellm.kernels.exchange.gather import Bounds, Gather
from edgellm.kernels.exchange.table import NOTHING, RelayTable, Run, frame_bytes
from edgellm.kernels.exchange.words import DONE, HEAD_BYTES, LOST, TAG_BYTES
from edgellm.kernels.thread_pool import Words

Rows = npt.NDArray[np.float32]

_KEPT_BYTES = 1 << 20
"""Memory for frames that is kept from pass to pass."""


class Mesh:
    """A machine's lanes to all others.

    Args:
        place: of this machine among all.
        lanes: by the places of the others.
        pulses: the heartbeats that go with them, where no others do.

    Attributes:
        place: as above.
        is_whole: whether rows can go over it; once it is not, it is of no use any more.
        passes: how many have ended.
        gathers: how many there were.
        seconds: that they took, with the time for which others were waited for.
        computed: seconds of the steps between them.
    """

    def __init__(self, place: int, lanes: Mapping[int, Lane], pulses: Sequence[Pulse] = ()) -> None:
        self.is_whole: bool = True
        self.passes: int = 0
        self.gathers: int = 0
        self.seconds: float = 0.0
        self.computed: float = 0.0
        self.place = place
        # of members, the first one is that to the first machine
        self._lanes = dict(sorted(lanes.items()))
        self._pulses = list(pulses)
        descriptors = {other: lane.fileno() for other, lane in self._lanes.items()}
        self._table = RelayTable(place, descriptors)
        self._number = 0  # of the frames that go next, over whichever lanes
        self._on_its_way: tuple[Gather, int] | None = None
        self._made_at = 0  # when this machine's columns of that were there

    def prepare(self, tokens: int, columns: Iterable[Sequence[Bounds]]) -> None:
        """Make room for gathers of up to so many tokens; none may be on its way."""
        widest = max(stop - first for of_all in columns for first, stop in of_all)
        if self._table.own.nbytes < frame_bytes(4 * tokens * widest):
            self._table.make_frames(4 * tokens * widest)

    def relay(self, gather: Gather, tokens: int, run: Run = (0, 0), ahead: Words = NOTHING) -> bool:
        """End the gather that is on its way, do something with it, and begin another one.

        Args:
            gather: what is gathered then; its memory stays until that has ended.
            tokens: of this gather and of the one before.
            run: makes this machine's columns.
            ahead: what that reads, as ``RelayTable.relay`` has it.

        Returns:
            Whether it was done: not where the first machine ends the pass instead.

        Raises:
            LaneError: a machine is gone.
        """
        own = tokens * gather.width(self.place)
        head = head_of(Kind.ROWS, self._number, own)
        if not self._relay(gather, tokens, run, ahead, head):
            return False
        self._on_its_way = gather, tokens
        self._made_at = self._table.made_at
        self._number += 1
        frame = self._table.own[: frame_bytes(own)]
        for lane in self._lanes.values():
            lane.sign(frame)
        return True

    def finish(self, run: Run = (0, 0), ahead: Words = NOTHING) -> bool:
        """End the gather that is on its way; the rest is as in ``relay``."""
        if self._on_its_way is None:
            return True
        return self._relay(None, self._on_its_way[1], run, ahead)

    def end(self, own: Rows, columns: Sequence[Bounds], *, on_all: bool = True) -> Rows:
        """End a pass with a last gather, after which all that was received is from the others.

        Args:
            own: columns (L, own) of this machine.
            columns: of each machine, those that it has.
            on_all: whether all machines gather; else the first one alone does.

        Returns:
            The columns (L, all) of all machines; ``own`` where there are none to gather.

        Raises:
            LaneError: a machine is gone, or not all was from it.
        """
        begun, tokens = time.perf_counter(), len(own)
        body = own.tobytes()
        gathers = on_all or not self.place
        sent = [body if on_all or not place else b"" for place in self._lanes]
        widths = [columns[place][1] - columns[place][0] if gathers else 0 for place in self._lanes]
        frames = self._swap(Kind.END, sent, [4 * tokens * width for width in widths])
        self.passes += 1
        if self._table.own.nbytes > _KEPT_BYTES:
            self._table.make_frames(0)
        if not gathers:
            return own
        whole = np.empty((tokens, columns[-1][1]), np.float32)
        whole[:, slice(*columns[self.place])] = own
        for place, width, frame in zip(self._lanes, widths, frames, strict=True):
            part = np.frombuffer(frame, np.float32, tokens * width, HEAD_BYTES)
            whole[:, slice(*columns[place])] = part.reshape(tokens, width)
        self.gathers += 1
        self.seconds += time.perf_counter() - begun
        return whole

    def stop(self, tokens: int, columns: Sequence[Bounds]) -> None:
        """End a pass in the place of the gather that the others wait for. Raises LaneError."""
        widths = [columns[place][1] - columns[place][0] for place in (self.place, *self._lanes)]
        own, *others = (4 * tokens * width for width in widths)
        self._swap(Kind.STOP, [b""] * len(others), others, sent_bytes=frame_bytes(own))

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

    def _relay(
        self,
        gather: Gather | None,
        tokens: int,
        run: Run = (0, 0),
        ahead: Words = NOTHING,
        head: bytes = bytes(HEAD_BYTES),
    ) -> bool:
        """Do as ``relay`` says, and take what has come; begin nothing where ``gather`` is None."""
        with self.in_pass():
            status = self._table.relay(gather, tokens, run, ahead, head=head)
            self._require_all(status)
            if status == DONE:
                self.computed += 1e-9 * (self._table.made_at - self._table.came_at)
            if self._on_its_way is not None:
                before, tokens = self._on_its_way
                self._on_its_way = None
                self.gathers += 1
                self.seconds += 1e-9 * (self._table.came_at - self._made_at)
                lengths = [tokens * before.width(place) for place in self._lanes]
                self._take(Kind.ROWS, lengths)
        return status == DONE

    def _swap(
        self,
        kind: Kind,
        bodies: Sequence[bytes],
        lengths: Sequence[int],
        *,
        sent_bytes: int = 0,
    ) -> list[memoryview]:
        """Send a frame with a tag to each machine, and return those that they send.

        Args:
            kind: of the frames.
            bodies: rows, between head and tag.
            lengths: bytes of rows in those that come.
            sent_bytes: of a frame at least.
        """
        frames = []
        for lane, body in zip(self._lanes.values(), bodies, strict=True):
            signed = head_of(kind, self._number, len(body)) + body
            lane.sign(signed)
            frames.append((signed + lane.tag()).ljust(sent_bytes, b"\0"))
        self._number += 1
        sizes = [_frame_bytes(kind, length) for length in lengths]
        if max(sizes) > self._table.own.nbytes:
            self._table.make_frames(max(sizes))
        with self.in_pass():
            self._require_all(self._table.swap(frames, sizes))
            self._take(kind, lengths)
        return [came[:size] for came, size in zip(self._table.came, sizes, strict=True)]

    def _require_all(self, status: int) -> None:
        """Raise LaneError where a machine is gone."""
        if status == LOST:
            raise list(self._lanes.values())[self._table.lost].gone()

    def _take(self, sent: Kind, lengths: Sequence[int]) -> None:
        """Take what has come in answer to frames of a kind. Raises LaneError.

        ``lengths`` are bytes of rows in those that were expected.
        """
        number = self._number - 1
        for lane, came, length in zip(self._lanes.values(), self._table.came, lengths, strict=True):
            head = bytes(came[:HEAD_BYTES])
            heads = {
                head_of(kind, number, 0 if kind == Kind.STOP else length): kind
                for kind in _ANSWERS[sent]
            }
            if head not in heads:
                raise lane.forged()
            if heads[head] == Kind.ROWS:
                lane.check(came[: frame_bytes(length)])
                continue
            end = HEAD_BYTES if heads[head] == Kind.STOP else HEAD_BYTES + length
            lane.check(came[:end])
            lane.require_tag(came[end : end + TAG_BYTES])


def _frame_bytes(sent: Kind, length: int) -> int:
    """Return the bytes of a frame that is expected for one of a kind, with so much of rows."""
    return HEAD_BYTES + length + TAG_BYTES if sent == Kind.END else frame_bytes(length)


_ANSWERS = {Kind.ROWS: (Kind.ROWS, Kind.STOP), Kind.END: (Kind.END,), Kind.STOP: (Kind.ROWS,)}
"""What the other side may send meanwhile."""
