"""Rows of numbers that go straight from one machine to another, many times per token.

Both sides send a frame and receive the other's, and know beforehand how long it is. What goes over
a lane is signed as a whole: a pass ends with an HMAC (SHA-256) of all that went before, so whatever
was changed, repeated or left out is found then, and nothing leaves the pass before. So the hashing
is done while frames are on their way.
"""

from __future__ import annotations

import hmac
import socket
import struct
from enum import IntEnum

from edgellm.distributed.links.handshake import Keys
from edgellm.distributed.links.signed_connection import SignedConnection
from edgellm.errors import MachineError

_HEAD = struct.Struct("!BxxxIQ")
_TAG_BYTES = 16
_NUMBERS = 1 << 32
"""Frames have numbers below this one, and begin at 0 again."""


class LaneError(MachineError):
    """A lane has ended in mid-pass; the reason may be known elsewhere."""


class Kind(IntEnum):
    """Kinds of frames; all but rows end a pass, and carry a tag."""

    ROWS = 1
    END = 2
    STOP = 3


_ANSWERS = {Kind.ROWS: (Kind.ROWS, Kind.STOP), Kind.END: (Kind.END,), Kind.STOP: (Kind.ROWS,)}
"""What the other side may send meanwhile."""


class Lane(SignedConnection):
    """One side of a connection over which rows go, in both directions at once.

    Args:
        connection: of TCP, whose sides know each other.
        keys: of its frames.
        name: the other machine's, for errors.

    Attributes:
        name: as above.
        received: what the last frame was, once it is there.
    """

    def __init__(self, connection: socket.socket, keys: Keys, name: str) -> None:
        super().__init__(connection, keys, name)
        connection.setblocking(False)
        self.received: Kind | None = None
        self._number = 0  # of the frames that go both ways now
        # what is left of both frames, and what of them and those before has to be hashed
        self._to_send: list[memoryview] = []
        self._to_receive: list[memoryview] = []
        self._unsigned: list[memoryview] = []
        self._unchecked: list[memoryview] = []
        self._head = self._target = self._tag = memoryview(b"")
        self._got = 0  # bytes of the frame
        self._sent = Kind.ROWS

    def fileno(self) -> int:
        """Return the number of its connection."""
        return self._connection.fileno()

    @property
    def is_sending(self) -> bool:
        """Whether a part of the frame is still to be sent."""
        return bool(self._to_send)

    def exchange(self, kind: Kind, rows: memoryview, target: memoryview) -> None:
        """Begin to send a frame and to receive one.

        Args:
            kind: what is sent.
            rows: of a frame of rows; unchanged until the next exchange.
            target: as many bytes as the rows that are expected; unchanged as long.
        """
        if kind == Kind.ROWS:
            head = memoryview(_HEAD.pack(kind, self._number, rows.nbytes))
            self._unsigned += [head, rows]
        else:
            self.settle()
            head = memoryview(_HEAD.pack(kind, self._number, _TAG_BYTES))
            self._signer.update(head)
            rows = memoryview(self._signer.digest()[:_TAG_BYTES])
        self._number = (self._number + 1) % _NUMBERS
        self._sent, self.received = kind, None
        self._to_send = [head, rows]
        self._head, self._target = memoryview(bytearray(_HEAD.size)), target
        self._tag = memoryview(b"")
        self._to_receive = [self._head, target]
        self._got = 0

    def settle(self) -> None:
        """Hash what was sent, and what was received before the last exchange."""
        for part in self._unsigned:
            self._signer.update(part)
        for part in self._unchecked:
            self._checker.update(part)
        self._unsigned.clear()
        self._unchecked.clear()

    def advance(self) -> bool:
        """Send and receive what can be at once; return whether both frames are through.

        Raises:
            LaneError: the other machine is gone, or the frame is none of its frames.
        """
        try:
            if self._to_send:
                self._send()
            if self.received is None:
                self._receive()
        except (OSError, ValueError) as error:
            reason = self._reason
            if reason is None and isinstance(error, OSError):
                reason = error.strerror or str(error)
            raise LaneError(f"machine {self.name} is gone: {reason or error}") from error
        return self.received is not None and not self._to_send

    def _send(self) -> None:
        try:
            _pass_over(self._to_send, self._connection.sendmsg(self._to_send))
        except BlockingIOError:
            return  # later

    def _receive(self) -> None:
        while self._to_receive:
            try:
                got = self._connection.recvmsg_into(self._to_receive)[0]
            except BlockingIOError:
                return  # later
            if not got:
                raise ConnectionError("it has ended the connection")
            _pass_over(self._to_receive, got)
            before, self._got = self._got, self._got + got
            if before < _HEAD.size <= self._got:
                self._look_at_head()
        self._take()

    def _look_at_head(self) -> None:
        """Go on to the tag where the frame is none of rows."""
        kind, number, nbytes = _HEAD.unpack(self._head)
        if (number + 1) % _NUMBERS != self._number or kind not in _ANSWERS[self._sent]:
            raise self._forged()
        if kind == Kind.ROWS and nbytes == self._target.nbytes:
            return
        if kind == Kind.ROWS or nbytes != _TAG_BYTES:
            raise self._forged()
        begun = self._target[: self._got - _HEAD.size]  # the tag came for rows
        if begun.nbytes > _TAG_BYTES:
            raise self._forged()
        self._tag = memoryview(bytearray(_TAG_BYTES))
        self._tag[: begun.nbytes] = begun
        self._to_receive = [self._tag[begun.nbytes :]]

    def _take(self) -> None:
        """Take a frame that is there as a whole."""
        if not self._tag:
            self._unchecked += [self._head, self._target]
            self.received = Kind.ROWS
            return
        self._unsigned, unsigned = [], self._unsigned
        self.settle()
        self._unsigned = unsigned
        self._checker.update(self._head)
        if not hmac.compare_digest(self._checker.digest()[:_TAG_BYTES], self._tag):
            raise self._forged()
        self.received = Kind(self._head[0])

    def _forged(self) -> LaneError:
        self.fail("a frame was damaged")
        return LaneError(
            f"a message from {self.name} is damaged, or not from it",
            hint="start the cluster again; if it comes back, something lies between the machines",
        )


def _pass_over(parts: list[memoryview], count: int) -> None:
    """Take so many bytes from the front of the parts, and empty parts with them."""
    while parts and count >= parts[0].nbytes:
        count -= parts.pop(0).nbytes
    if count:
        parts[0] = parts[0][count:]
