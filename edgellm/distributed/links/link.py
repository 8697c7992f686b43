"""Frames over a connection: a JSON object and raw bytes, signed, counted, never pickled.

A frame is the lengths of both parts, an HMAC (SHA-256) of its number and all its bytes, and the two
parts. Nothing of a frame is looked at before that is right, so nobody in between can change, repeat
or leave out one. Frames are not encrypted: for that there is ssh.
"""

from __future__ import annotations

import hmac
import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgellm.distributed.links.handshake import Keys, derived
from edgellm.distributed.links.lane import Lane
from edgellm.distributed.links.signed_connection import SignedConnection
from edgellm.errors import MachineError

MAX_HEAD_BYTES = 16 << 20
MAX_BODY_BYTES = 4 << 30

ASK_SECONDS = 0.05
"""Time between two questions whether to go on waiting."""

_PREFIX = struct.Struct("!IQ")
_TAG_BYTES = 16


class Link(SignedConnection):
    """One of the connections between two machines.

    Frames may be sent from any thread, and are received by one.

    Args:
        connection: of TCP, whose sides know each other.
        keys: of its frames.
        name: the other machine's, for errors.
    """

    def __init__(self, connection: socket.socket, keys: Keys, name: str) -> None:
        super().__init__(connection, keys, name)
        self._keys = keys
        self._sending = threading.Lock()
        self._sent = 0
        self._received = 0
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def set_timeout(self, seconds: float | None) -> None:
        """Let a frame that stays half received or half sent for so long be an error."""
        self._connection.settimeout(seconds)

    def become_lane(self, name: str) -> Lane:
        """Return what rows go over from now on, over the same connection; this is used no more."""
        return Lane(self._connection, Keys(*(derived(key, b"rows") for key in self._keys)), name)

    def send(self, head: Mapping[str, Any], *body: memoryview) -> None:
        """Send a frame. Raises MachineError where the other machine is gone."""
        text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
        body_bytes = sum(part.nbytes for part in body)
        prefix = _PREFIX.pack(len(text), body_bytes)
        with self._sending:
            tag = _tag(self._signer, self._sent, [prefix, text, *body])
            self._sent += 1
            rest = [memoryview(part) for part in (prefix, tag, text)]
            rest += [part.cast("B") for part in body]
            try:
                _send_all(self._connection, [part for part in rest if part.nbytes])
            except (OSError, ValueError) as error:
                raise self._lost(error) from error

    def receive(self, ask: Callable[[], None] | None = None) -> tuple[dict[str, Any], memoryview]:
        """Return the next frame: its object and its bytes.

        Args:
            ask: called now and then while no frame comes.

        Raises:
            MachineError: the other machine is gone, or the frame is none of its frames.
        """
        try:
            while ask is not None and not self.wait(ASK_SECONDS):
                ask()
            prefix = self._take(_PREFIX.size + _TAG_BYTES)
            head_bytes, body_bytes = _PREFIX.unpack(prefix[: _PREFIX.size])
            if head_bytes > MAX_HEAD_BYTES or body_bytes > MAX_BODY_BYTES:
                raise self._forged()
            head, body = self._take(head_bytes), self._take(body_bytes)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error
        tag = _tag(self._checker, self._received, [prefix[: _PREFIX.size], head, body])
        self._received += 1
        if not hmac.compare_digest(tag, prefix[_PREFIX.size :]):
            raise self._forged()
        try:
            told = json.loads(bytes(head))
        except (ValueError, RecursionError):
            raise self._forged() from None
        if not isinstance(told, dict):
            raise self._forged()
        return told, body

    def wait(self, seconds: float) -> bool:
        """Wait for something to receive; return whether there is. Raises OSError, ValueError."""
        return bool(self._poll.poll(seconds * 1000))

    def _take(self, count: int) -> memoryview:
        data = memoryview(bytearray(count))
        place = 0
        while place < count:
            got = self._connection.recv_into(data[place:])
            if not got:
                raise ConnectionError("it has ended the connection")
            place += got
        return data

    def _lost(self, error: Exception) -> MachineError:
        reason = self._reason
        if reason is None and isinstance(error, OSError):
            reason = error.strerror or str(error)
        return MachineError(f"machine {self.name} is gone: {reason or error}")

    def _forged(self) -> MachineError:
        self.fail("a frame was damaged")
        return MachineError(
            f"a message from {self.name} is damaged, or not from it",
            hint="start the cluster again; if it comes back, something lies between the machines",
        )


def _tag(keyed: hmac.HMAC, number: int, parts: Sequence[bytes | memoryview]) -> bytes:
    digest = keyed.copy()
    digest.update(number.to_bytes(8, "big"))
    for part in parts:
        digest.update(part)
    return digest.digest()[:_TAG_BYTES]


def _send_all(connection: socket.socket, parts: list[memoryview]) -> None:
    """Send the parts one after the other. Raises OSError."""
    while parts:
        sent = connection.sendmsg(parts)
        while parts and sent >= parts[0].nbytes:
            sent -= parts.pop(0).nbytes
        if sent:
            parts[0] = parts[0][sent:]
