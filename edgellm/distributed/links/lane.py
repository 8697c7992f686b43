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
from edgellm.kernels.exchange.words import HEAD_BYTES, ROWS_KIND, TAG_BYTES

_HEAD = struct.Struct("!BxxxIQ")
assert _HEAD.size == HEAD_BYTES, "native code passes over it"

_NUMBERS = 1 << 32
"""Frames have numbers below this one, and begin at 0 again."""


class LaneError(MachineError):
    """A lane has ended in mid-pass; the reason may be known elsewhere."""


class Kind(IntEnum):
    """Kinds of frames; all but rows end a pass, and carry a tag."""

    ROWS = ROWS_KIND
    END = 2
    STOP = 3


def head_of(kind: Kind, number: int, nbytes: int) -> bytes:
    """Return the head of a frame: what it is, which one of the lane's, and how long."""
    return _HEAD.pack(kind, number % _NUMBERS, nbytes)


class Lane(SignedConnection):
    """One side of a connection over which rows go, in both directions at once.

    Args:
        connection: of TCP, whose sides know each other.
        keys: of its frames.
        name: the other machine's, for errors.

    Attributes:
        name: as above.
    """

    def __init__(self, connection: socket.socket, keys: Keys, name: str) -> None:
        super().__init__(connection, keys, name)
        connection.setblocking(False)

    def fileno(self) -> int:
        """Return the number of its connection."""
        return self._connection.fileno()

    def sign(self, sent: bytes | memoryview) -> None:
        """Let the next tag be also of this."""
        self._signer.update(sent)

    def check(self, received: bytes | memoryview) -> None:
        """Let the next tag that comes have to be also of this."""
        self._checker.update(received)

    def tag(self) -> bytes:
        """Return an HMAC of all that was sent so far."""
        return self._signer.digest()[:TAG_BYTES]

    def require_tag(self, tag: bytes | memoryview) -> None:
        """Raise LaneError where not all that was received is what the other machine has sent."""
        if not hmac.compare_digest(self._checker.digest()[:TAG_BYTES], tag):
            raise self.forged()

    def gone(self) -> LaneError:
        """Return why nothing can be sent or received any more."""
        reason = self._reason
        if reason is None:
            reason = "it has ended the connection"
            try:
                self._connection.recv(1)
            except BlockingIOError:
                pass  # it has not yet said so itself
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
        return LaneError(f"machine {self.name} is gone: {reason}")

    def forged(self) -> LaneError:
        """End the connection, and return why."""
        self.fail("a frame was damaged")
        return LaneError(
            f"a message from {self.name} is damaged, or not from it",
            hint="start the cluster again; if it comes back, something lies between the machines",
        )
