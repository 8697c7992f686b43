"""A machine is called at its address, and proves that it knows the secret."""

from __future__ import annotations

import socket

from edgellm.distributed.links.addresses import NO_NETWORK
from edgellm.distributed.links.handshake import HANDSHAKE_SECONDS, shake_hands
from edgellm.distributed.links.link import Link
from edgellm.distributed.links.machines import Machine
from edgellm.errors import MachineError


def call(machine: Machine, secret: bytes, *, seconds: float = HANDSHAKE_SECONDS) -> Link:
    """Return a connection to a machine that knows the secret. Raises MachineError.

    Args:
        machine: which one.
        secret: of the cluster.
        seconds: that it may take to be there.
    """
    seconds = min(seconds, HANDSHAKE_SECONDS)
    try:
        connection = socket.create_connection(machine.address, timeout=seconds)
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, socket.gaierror):  # of numbers, which have no other reason
            reason = NO_NETWORK
        raise MachineError(
            f"machine {machine.name} cannot be reached at {machine.address}: {reason}",
            hint="run edgellm cluster join there, or edgellm cluster start here; see whether this "
            "is still its address",
        ) from error
    try:
        name = f"machine {machine.name}"
        keys = shake_hands(connection, secret, calls=True, name=name, seconds=seconds)
    except BaseException:
        connection.close()
        raise
    return Link(connection, keys, machine.name)
