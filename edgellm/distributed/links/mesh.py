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
from edgellm.kernels.exchange.table import RelayTable, Run, frame_bytes
from edgellm.kernels.exchange.words import DONE, HEAD_BYTES, LOST, TAG_BYTES

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

    def relay(self, gather: Gather, tokens: int, run: Run = (0, 0)) -> bool:
        """End the gather that is on its way, do something with it, and begin another one.

        Args:
            gather: what is gathered then; its memory stays until that has ended.
            tokens: of this gather and of the one before.
            run: makes this machine's columns.

        Returns:
            Whether it was done: not where the first machine ends the pass instead.

        Raises:
            LaneError: a machine is gone.
        """
        own = tokens * gather.width(self._place)
        frame = self._table.own[: frame_bytes(own)]
        frame[:HEAD_BYTES] = head_of(Kind.ROWS, self._number, own)
        if not self._relay(gather, tokens, run):
            return False
        self._on_its_way = gather, tokens
        self._made_at = self._table.made_at
        self._number += 1
        for lane in self._lanes.values():
            lane.sign(frame)
        return True

    def finish(self) -> bool:
        """End the gather that is on its way; return and raise as ``relay`` does."""
        if self._on_its_way is None:
            return True
        return self._relay(None, self._on_its_way[1])

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
            self._swap(Kind.ROWS, [own.tobytes()], [0])
            return own
        widths = [stop - first for first, stop in columns[1:]]
        lengths = [4 * tokens * width for width in widths]
        frames = self._swap(Kind.ROWS, [b""] * len(lengths), lengths)
        parts = [
            np.frombuffer(frame, np.float32, tokens * width, HEAD_BYTES).reshape(tokens, width)
            for frame, width in zip(frames, widths, strict=True)
        ]
        self.gathers += 1
        self.seconds += time.perf_counter() - begun
        return np.concatenate([own, *parts], axis=1)

    def end(self) -> None:
        """End a pass: all that was received is from the others. Raises LaneError."""
        self._swap(Kind.END, self._tags(Kind.END), [TAG_BYTES] * len(self._lanes))
        self.passes += 1
        if self._table.own.nbytes > _KEPT_BYTES:
            self._table.make_frames(0)

    def stop(self, tokens: int, columns: Sequence[Bounds]) -> None:
        """End a pass in the place of the gather that the others wait for. Raises LaneError."""
        widths = [columns[place][1] - columns[place][0] for place in (self._place, *self._lanes)]
        own, *others = (4 * tokens * width for width in widths)
        body_bytes = frame_bytes(own) - HEAD_BYTES
        self._swap(
            Kind.STOP, [tag.ljust(body_bytes, b"\0") for tag in self._tags(Kind.STOP)], others
        )

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

    def _relay(self, gather: Gather | None, tokens: int, run: Run = (0, 0)) -> bool:
        """Do as ``relay`` says, and take what has come; begin nothing where ``gather`` is None."""
        with self.in_pass():
            status = self._table.relay(gather, tokens, run)
            self._require_all(status)
            if self._on_its_way is not None:
                before, tokens = self._on_its_way
                self._on_its_way = None
                self.gathers += 1
                self.seconds += 1e-9 * (self._table.came_at - self._made_at)
                lengths = [tokens * before.width(place) for place in self._lanes]
                self._take(Kind.ROWS, lengths)
        return status == DONE

    def _swap(
        self, kind: Kind, bodies: Sequence[bytes], lengths: Sequence[int]
    ) -> list[memoryview]:
        """Send a frame to each of the first machines, and return those that they send.

        Args:
            kind: of the frames.
            bodies: what follows their heads.
            lengths: of the rows that are expected instead; of tags, those of a tag.
        """
        frames = []
        for lane, body in zip(self._lanes.values(), bodies, strict=False):
            nbytes = len(body) if kind == Kind.ROWS else TAG_BYTES
            frames.append(head_of(kind, self._number, nbytes) + body.ljust(TAG_BYTES, b"\0"))
            if kind == Kind.ROWS:
                lane.sign(frames[-1])
        self._number += 1
        if max(map(frame_bytes, lengths)) > self._table.own.nbytes:
            self._table.make_frames(max(lengths))
        with self.in_pass():
            self._require_all(self._table.swap(frames, lengths))
            return self._take(kind, lengths)

    def _tags(self, kind: Kind) -> list[bytes]:
        """Return a tag for each machine of all that it was sent, and of the head that is sent."""
        tags = []
        for lane in self._lanes.values():
            lane.sign(head_of(kind, self._number, TAG_BYTES))
            tags.append(lane.tag())
        return tags

    def _require_all(self, status: int) -> None:
        """Raise LaneError where a machine is gone."""
        if status == LOST:
            raise list(self._lanes.values())[self._table.lost].gone()

    def _take(self, sent: Kind, lengths: Sequence[int]) -> list[memoryview]:
        """Return the frames that have come in answer to those of a kind. Raises LaneError.

        ``lengths`` are bytes of rows in those of the first machines; the others have sent nothing.
        """
        number, frames = self._number - 1, []
        for lane, came, rows in zip(self._lanes.values(), self._table.came, lengths, strict=False):
            frames.append(came[: frame_bytes(rows)])
            head = bytes(came[:HEAD_BYTES])
            if Kind.ROWS in _ANSWERS[sent] and head == head_of(Kind.ROWS, number, rows):
                lane.check(frames[-1])
                continue
            tagged = [kind for kind in _ANSWERS[sent] if kind != Kind.ROWS]
            if head not in [head_of(kind, number, TAG_BYTES) for kind in tagged]:
                raise lane.forged()
            lane.check(head)
            lane.require_tag(came[HEAD_BYTES : HEAD_BYTES + TAG_BYTES])
        return frames


_ANSWERS = {Kind.ROWS: (Kind.ROWS, Kind.STOP), Kind.END: (Kind.END,), Kind.STOP: (Kind.ROWS,)}
"""What the other side may send meanwhile."""
