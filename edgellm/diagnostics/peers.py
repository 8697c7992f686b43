"""Machines of a cluster and their links, measured, and said without names or addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgellm.device import machine as device
from edgellm.device.streams import borrowed_stream
from edgellm.distributed.links.machines import Machine, read_machines, secret_file
from edgellm.distributed.links.secret import read_secret
from edgellm.distributed.parts.digests import versions
from edgellm.distributed.parts.part import shared_settings
from edgellm.distributed.remote.link_speed import one_way_rate, trip_seconds
from edgellm.distributed.remote.peer import Peer
from edgellm.distributed.supply.sample_model import measure_told, sample_model
from edgellm.errors import EdgeLLMError
from edgellm.settings import LoadSettings

TRIPS = {8: 100, 4_000: 100, 64_000: 50, 1_000_000: 10}
"""How many messages go there and back, by their bytes."""

RATE_SECONDS = 1.0

PATH = re.compile(r"(?<![\w/])~?/[^\s,:;'\"]+")


@dataclass(slots=True)
class MeasuredPeer:
    """A machine and the link to it. Sizes in bytes, times in seconds, rates in bytes a second.

    Attributes:
        number: of the machine, in the order of its file; 1 is this one.
        error: why there is no more; empty where there is.
        chip: processor or GPU.
        system: the operating system.
        memory: all that it has.
        versions: of what computes.
        disk: rate of reads; None where it could not be measured.
        weights: rate of weights through the arithmetic of a token, of ``sample_model``.
        trips: time of a message there and back, by its bytes; none to this machine.
        there: rate of long messages there; None to this machine.
        back: rate of long messages back.
    """

    number: int
    error: str = ""
    chip: str = ""
    system: str = ""
    memory: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    disk: float | None = None
    weights: float | None = None
    trips: dict[int, float] = field(default_factory=dict)
    there: float | None = None
    back: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return asdict(self)


def examine_peers(
    hosts: Path, disk: float | None, begin: Callable[[str], None] = lambda _: None
) -> list[MeasuredPeer]:
    """Measure the machines of a file, one after the other; this one is the first.

    Args:
        hosts: the file.
        disk: the rate of this machine's disk, which was measured before.
        begin: called with what is tried next.

    Raises:
        ConfigError: the file, or the secret beside it, cannot be read.
    """
    machines, secret = read_machines(hosts), read_secret(secret_file(hosts))
    model = sample_model()
    begin("arithmetic of this machine")
    with borrowed_stream():
        weights = measure_told(model, LoadSettings())
    found = [
        MeasuredPeer(
            1,
            chip=device.chip_name(),
            system=device.system_name(),
            memory=device.read_memory().total,
            versions=versions(),
            disk=disk,
            weights=weights,
        )
    ]
    for number, machine in enumerate(machines[1:], 2):
        measured = MeasuredPeer(number)
        found.append(measured)
        try:
            with closing(Peer(machine, secret)) as peer:
                _measure(peer, measured, model, begin)
        except EdgeLLMError as error:
            measured.error = masked(error.message, machine, number)
    return found


def _measure(
    peer: Peer, measured: MeasuredPeer, model: dict[str, Any], begin: Callable[[str], None]
) -> None:
    facts, name = peer.facts, peer.machine.name
    measured.chip, measured.system = str(facts["chip"]), str(facts["system"])
    measured.memory, measured.versions = int(facts["memory"]), dict(facts["versions"])
    begin(f"link to {name}")
    measured.trips = {nbytes: trip_seconds(peer, nbytes, count) for nbytes, count in TRIPS.items()}
    measured.there = one_way_rate(peer, back=False, seconds=RATE_SECONDS)
    measured.back = one_way_rate(peer, back=True, seconds=RATE_SECONDS)
    begin(f"arithmetic of {name}")
    told = {"ask": "arithmetic", "settings": shared_settings(LoadSettings()), "model": model}
    measured.weights = float(peer.request(told)[0]["answer"])
    begin(f"disk of {name}")
    measured.disk = float(peer.request({"ask": "disk"})[0]["answer"])


def masked(text: str, machine: Machine, number: int) -> str:
    """Return what was said of a machine without its name, address and paths."""
    for private in (str(machine.address), machine.address.host):
        text = text.replace(private, "its address")
    text = text.replace(machine.name, str(number))
    return PATH.sub("a path", text).replace("machine its address", f"machine {number}")
