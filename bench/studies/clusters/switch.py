"""A switch between network namespaces, whose links have a delay and a rate.

    python -m edgellm.bench.studies.clusters.switch MACHINES --delay SECONDS --rate BYTES

It makes a TUN device for each machine, says that it is ready, and forwards what they send until its
standard input ends. What a machine sends goes out one byte after the other at the rate of its link,
and is at the other one after the delay; nothing is lost, and nothing overtakes.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgellm.console.terminal import write_line

MTU = 65_000
"""Bytes of a packet at most: few large ones, so that the switch has little to do for each."""

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PR_SET_TIMERSLACK = 29

_DESTINATION = 19
"""The byte of a packet that says which machine it is for."""

_AT_ONCE = 64
"""Packets that one machine may send before the others have their turn."""


def device_name(prefix: str, machine: int) -> str:
    """Return what the device of a machine is called until it is in its namespace."""
    return f"{prefix}t{machine}"


@dataclass(slots=True)
class Queues:
    """Packets on their way between machines, each with the time when it arrives.

    Attributes:
        machines: how many there are.
        delay: seconds that a packet is on its way.
        rate: bytes per second that a machine sends at most.
    """

    machines: int
    delay: float
    rate: float
    _taken: int = 0
    # to each machine: when a packet arrives, its number, and the packet
    _lanes: list[list[tuple[float, int, bytes]]] = field(init=False)
    # when each machine's link has sent all that it was given
    _sent: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Make them empty."""
        self._lanes = [[] for _ in range(self.machines)]
        self._sent = [0.0] * self.machines

    def put(self, source: int, packet: bytes, now: float) -> None:
        """Take a packet that a machine sends; one for nobody here is dropped."""
        target = packet[_DESTINATION] - 1 if packet[0] >> 4 == 4 else -1
        if not 0 <= target < self.machines:
            return
        self._sent[source] = max(self._sent[source], now) + len(packet) / self.rate
        self._taken += 1
        arrives = self._sent[source] + self.delay
        heapq.heappush(self._lanes[target], (arrives, self._taken, packet))

    def due(self, machine: int, now: float) -> bytes | None:
        """Return the next packet that has arrived at a machine; None: there is none yet."""
        lane = self._lanes[machine]
        if lane and lane[0][0] <= now:
            return heapq.heappop(lane)[2]
        return None

    def next_due(self) -> float | None:
        """Return when the next packet arrives anywhere; None where nothing is on its way."""
        return min((lane[0][0] for lane in self._lanes if lane), default=None)


def make_device(name: str) -> int:
    """Make a TUN device, and return the descriptor of its other end; it goes when that closes."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    asked = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(device, _TUNSETIFF, asked)
    return device


def forward(devices: Sequence[int], queues: Queues, until: int) -> None:
    """Forward packets until there is something to read on a descriptor, or it is closed."""
    while True:
        now = time.monotonic()
        for machine, device in enumerate(devices):
            while (packet := queues.due(machine, now)) is not None:
                _write(device, packet)
        due = queues.next_due()
        patience = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select([*devices, until], [], [], patience)
        if until in ready:
            return
        now = time.monotonic()
        for machine, device in enumerate(devices):
            if device in ready:
                for packet in _packets(device):
                    queues.put(machine, packet, now)


def _packets(device: int) -> list[bytes]:
    packets = []
    for _ in range(_AT_ONCE):
        try:
            packets.append(os.read(device, 1 << 16))
        except OSError:  # it has no more, or is not up yet
            break
    return packets


def _write(device: int, packet: bytes) -> None:
    try:
        os.write(device, packet)
    except OSError:
        return  # as on a cable that is not plugged in yet


def main() -> None:
    """Run the switch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("machines", type=int)
    parser.add_argument("--prefix", default="edgellm")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=1.25e9)
    parser.add_argument("--priority", type=int, help="in real time")
    asked = parser.parse_args()
    # the system may otherwise wake this late by 50 us, half of a fast link's delay
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if asked.priority is not None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(asked.priority))
    devices = [make_device(device_name(asked.prefix, place)) for place in range(asked.machines)]
    write_line("ready")
    sys.stdout.flush()
    forward(devices, Queues(asked.machines, asked.delay, asked.rate), sys.stdin.fileno())


if __name__ == "__main__":
    main()
