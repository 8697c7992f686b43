"""Ports that are free, and stay it until somebody listens there."""

import os
import socket
from contextlib import closing, suppress
from random import Random

RANGE = range(20_000, 32_000)
"""Below those that systems give connections of their own: port 0 may be given to another next."""

_draw = Random(os.getpid())  # other processes of a run draw others


def free_ports(count):
    """Ports of this machine on which nobody listens."""
    found = set()
    while len(found) < count:
        port = _draw.choice(RANGE)
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            found.add(port)
    return list(found)


def free_port():
    """One of them."""
    return free_ports(1)[0]
