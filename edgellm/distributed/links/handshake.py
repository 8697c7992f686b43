"""How two machines prove to each other that they know the secret, without sending it.

Each sends 32 random bytes; each answers with an HMAC of both sides' bytes under the secret, that of
the caller first, so that who does not know the secret learns nothing. From the same bytes come the
keys of the frames that follow, one for each direction.
"""

from __future__ import annotations

import hmac
import os
import socket
import time
from typing import NamedTuple

from edgellm.errors import MachineError

GREETING = b"edgellm cluster 1\n"
"""What both sides begin with: another number is another protocol."""

HANDSHAKE_SECONDS = 5.0

_NONCE_BYTES, _PROOF_BYTES = 32, 32


class Keys(NamedTuple):
    """The keys of a connection.

    Attributes:
        sent: of the frames that this side sends.
        received: of those that it receives.
    """

    sent: bytes
    received: bytes


def shake_hands(
    connection: socket.socket,
    secret: bytes,
    *,
    calls: bool,
    name: str,
    seconds: float = HANDSHAKE_SECONDS,
) -> Keys:
    """Return the keys of a new connection.

    Args:
        connection: of TCP.
        secret: shared by all machines.
        calls: whether this side has called.
        name: the other machine's, for errors.
        seconds: that it may take.

    Raises:
        MachineError: the other side is no edgellm of this protocol, does not know the secret, or
            says nothing.
    """
    deadline = time.monotonic() + seconds
    own = os.urandom(_NONCE_BYTES)
    try:
        if calls:
            connection.sendall(GREETING + own)
        greeting = _receive(connection, len(GREETING) + _NONCE_BYTES, deadline)
        if not greeting:
            raise _hung_up(name)
        if greeting[: len(GREETING)] != GREETING:
            raise MachineError(
                f"what listens at {name} is no edgellm that understands this one",
                hint="run the same version of edgellm on all machines; check the port",
            )
        other = greeting[len(GREETING) :]
        if calls:
            transcript = own + other
            connection.sendall(_proof(secret, b"caller", transcript))
            # a listener that does not like the caller's proof hangs up
            proof = _receive(connection, _PROOF_BYTES, deadline)
            _check(proof, _proof(secret, b"listener", transcript), name)
        else:
            transcript = other + own
            connection.sendall(GREETING + own)
            proof = _receive(connection, _PROOF_BYTES, deadline)
            if not proof:
                raise _hung_up(name)
            _check(proof, _proof(secret, b"caller", transcript), name)
            connection.sendall(_proof(secret, b"listener", transcript))
    except OSError as error:
        raise MachineError(
            f"{name} did not answer: {error.strerror or error}",
            hint="check that edgellm cluster join runs there",
        ) from error
    to_listener = _proof(secret, b"key to the listener", transcript)
    to_caller = _proof(secret, b"key to the caller", transcript)
    if calls:
        return Keys(to_listener, to_caller)
    return Keys(to_caller, to_listener)


def derived(key: bytes, use: bytes) -> bytes:
    """Return a key for another use, from which the first cannot be learned."""
    return hmac.digest(key, use, "sha256")


def _proof(secret: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, GREETING + role + b"\0" + transcript, "sha256")


def _hung_up(name: str) -> MachineError:
    return MachineError(
        f"{name} hung up before it had said who it is",
        hint="check that edgellm cluster join runs there, and see what it says",
    )


def _check(proof: bytes, expected: bytes, name: str) -> None:
    if not hmac.compare_digest(proof, expected):
        raise MachineError(
            f"{name} has another secret",
            hint="take the one that the last edgellm cluster start has written",
        )


def _receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    """Receive exactly ``count`` bytes; fewer, where the other side hangs up, match nothing.

    Raises OSError.
    """
    data = b""
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came in time")
        connection.settimeout(left)
        part = connection.recv(count - len(data))
        if not part:
            break
        data += part
    connection.settimeout(None)
    return data
