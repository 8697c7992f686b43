"""How fast the connection to another machine is, with all that a frame takes on both sides."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from edgellm.distributed.remote.peer import Peer

ROUND_TRIPS = 20
"""Messages there and back, of which the median counts."""

LONG_BYTES = 4 << 20
"""A message that shows the rate: the hidden states of a prompt."""

LONG_TRIPS = 3

LOGIT_TRIPS = 7
"""Answers as long as a token's logits, of which the median counts."""


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """A connection between two machines.

    Attributes:
        round_trip_seconds: of a token's hidden state, there and back.
        bytes_per_second: of a long message, one way.
    """

    round_trip_seconds: float
    bytes_per_second: float


def measure_link(peer: Peer, token_bytes: int) -> LinkSpeed:
    """Send messages to a machine and back. Raises MachineError where it is gone."""
    short = trip_seconds(peer, token_bytes, ROUND_TRIPS)
    long = trip_seconds(peer, LONG_BYTES, LONG_TRIPS)
    # a long message has a short one's fixed costs too
    return LinkSpeed(short, 2 * LONG_BYTES / max(long - short, 1e-9))


def one_way_rate(peer: Peer, *, back: bool, seconds: float) -> float:
    """Return bytes per second in one direction. Raises MachineError where the machine is gone.

    Args:
        peer: the machine.
        back: whether bytes come from there, instead of going there.
        seconds: for how long they go.
    """
    short = trip_seconds(peer, 0, ROUND_TRIPS)
    message = memoryview(bytes(0 if back else LONG_BYTES))
    nbytes, waited, begun = 0, 0.0, time.perf_counter()
    while nbytes < LONG_TRIPS * LONG_BYTES or time.perf_counter() - begun < seconds:
        peer.request({"ask": "echo", "back": LONG_BYTES if back else 0}, [message])
        nbytes += LONG_BYTES
        waited += short
    return nbytes / max(time.perf_counter() - begun - waited, 1e-9)


def trip_seconds(peer: Peer, nbytes: int, trips: int) -> float:
    """Return the median time of so many messages there and back. Raises MachineError."""
    return _median_seconds(peer, {"ask": "echo"}, memoryview(bytes(nbytes)), trips)


def answer_seconds(peer: Peer, nbytes: int, trips: int) -> float:
    """Return the median time of so many short messages and long answers. Raises MachineError."""
    return _median_seconds(peer, {"ask": "echo", "back": nbytes}, memoryview(b""), trips)


def _median_seconds(peer: Peer, head: dict[str, Any], message: memoryview, trips: int) -> float:
    times = []
    for _ in range(trips):
        begun = time.perf_counter()
        peer.request(head, [message])
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
