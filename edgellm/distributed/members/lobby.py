"""Callers that have not proved yet that they know the secret; none keeps another out."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from contextlib import suppress

MAX_CALLERS = 64
"""In all; as many machines as a cluster may have may call at once."""

MAX_OF_ONE = 16
"""From one address, or one network of IPv6."""

MAX_KNOWN = 1024
"""Addresses of known machines that are noted."""


class Caller:
    """A connection whose other side is not known yet.

    Args:
        connection: of TCP.
        host: where it comes from.

    Attributes:
        connection: as above.
        host: as above.
        origin: of which so many are let in.
        is_sent_away: whether it was ended for another one's sake.
    """

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.connection = connection
        self.host = host
        self.origin: str = _origin(host)
        self.is_sent_away: bool = False

    def send_away(self) -> None:
        """End the connection, from any thread; whoever waits for it goes on."""
        self.is_sent_away = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Lobby:
    """Lets every caller in, and sends another one away where there are too many.

    Who proves nothing gives way to who comes after: first those of the same address, then of the
    address with the most callers, the oldest first. Addresses from which somebody has proved it
    before give way last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: list[Caller] = []  # the oldest first
        self._known: dict[str, None] = {}

    def enter(self, connection: socket.socket, host: str) -> Caller:
        """Let a caller in."""
        caller = Caller(connection, host)
        with self._lock:
            surplus = self._surplus(caller)
            if surplus is not None:
                self._callers.remove(surplus)
            self._callers.append(caller)
        if surplus is not None:
            surplus.send_away()
        return caller

    def _surplus(self, caller: Caller) -> Caller | None:
        """Return who gives way to a caller, if anybody has to."""
        counts = Counter(each.origin for each in self._callers)
        if counts[caller.origin] >= MAX_OF_ONE:
            return next(each for each in self._callers if each.origin == caller.origin)
        if len(self._callers) < MAX_CALLERS:
            return None
        # of several that are alike, ``min`` takes the first
        return min(
            self._callers, key=lambda each: (each.origin in self._known, -counts[each.origin])
        )

    def leave(self, caller: Caller, *, is_known: bool) -> None:
        """Let a caller out, who has proved that it knows the secret, or has not."""
        with self._lock:
            if caller in self._callers:
                self._callers.remove(caller)
            if is_known:
                self._known.pop(caller.origin, None)  # the newest is the last
                self._known[caller.origin] = None
                if len(self._known) > MAX_KNOWN:
                    del self._known[next(iter(self._known))]


def _origin(host: str) -> str:
    """Return that of which a caller's address is one: of IPv6, somebody has a whole network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4 or address.is_link_local or address.is_loopback:
        return host
    return str(ipaddress.ip_network((int(address), 64), strict=False))
