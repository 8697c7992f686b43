"""A forecast of a cluster: each machine's layers and reads, and the time of a token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from edgellm.device.streams import borrowed_stream
from edgellm.distributed.cluster import choose_cut
from edgellm.distributed.gathered import Gathered, gather
from edgellm.distributed.parts.part import shared_settings
from edgellm.distributed.parts.rows import plan_rows, share_rows
from edgellm.distributed.remote.peer import Peer
from edgellm.memory_plan.plan import Plan
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.runtime.step_time import measure_step
from edgellm.settings import LoadSettings

ROUND_TRIPS = 20
"""Trips of a token's hidden state, of which the median counts."""

GATHERS = 4
"""Trips of a token in each layer that is split by rows."""


@dataclass(frozen=True, slots=True)
class MachinePart:
    """One machine's part, before it is loaded.

    Attributes:
        name: the machine's.
        layers: the numbers of its layers.
        plan: how they would lie in its memory.
        disk: bytes per second of its disk; None where it reads nothing.
        weights: bytes of weights per second through its arithmetic.
        trip_seconds: a token's hidden state to it and back; 0 for this machine.
    """

    name: str
    layers: tuple[int, ...]
    plan: Plan
    disk: float | None
    weights: float
    trip_seconds: float

    @property
    def read_seconds(self) -> float:
        """Seconds per token that its disk needs."""
        if self.disk is None:
            return 0.0
        return self.plan.streamed_bytes / self.disk

    @property
    def arithmetic_seconds(self) -> float:
        """Seconds per token that its arithmetic needs."""
        return self.plan.weight_bytes_per_token / self.weights


@dataclass(frozen=True, slots=True)
class ClusterForecast:
    """A cut, and how long a token would take.

    Attributes:
        parts: of each machine.
        windows: in how many parts tokens go through the layers; 0: all machines have rows of each.
        link_seconds: per token, on the way between machines.
    """

    parts: Sequence[MachinePart]
    windows: int
    link_seconds: float

    @property
    def seconds_per_token(self) -> float:
        """Disks read side by side; machines compute one after the other, or rows at once."""
        read = max(part.read_seconds for part in self.parts)
        together = sum if self.windows else max
        arithmetic = together(part.arithmetic_seconds for part in self.parts)
        return max(read, arithmetic + self.link_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {
            "machines": [
                {
                    "name": part.name,
                    "layers": list(part.layers),
                    "pinned": len(part.plan.pinned),
                    "budget": part.plan.budget,
                    "total_bytes": part.plan.total_bytes,
                    "streamed_bytes": part.plan.streamed_bytes,
                    "disk_bytes_per_second": part.disk,
                    "weights_per_second": part.weights,
                    "trip_seconds": part.trip_seconds,
                }
                for part in self.parts
            ],
            "context": self.parts[0].plan.context,
            "windows": self.windows,
            "link_seconds": self.link_seconds,
            "seconds_per_token": self.seconds_per_token,
            "tokens_per_second": 1 / self.seconds_per_token,
        }


def forecast_cluster(checkpoint: AnyCheckpoint, settings: LoadSettings) -> ClusterForecast:
    """Call the machines, measure them and the links, and return what each would have.

    Errors are those of ``open_cluster``.
    """
    with ExitStack() as stack:
        gathered = gather(checkpoint, settings, stack)
        if settings.split == "rows":
            return _forecast_rows(gathered)
        chosen = choose_cut(gathered)
        cut = chosen.cut
        parts = _parts(gathered, cut.layers, chosen.plans, chosen.disks)
        link_seconds = sum(parts[window.machine].trip_seconds for window in cut.windows)
        return ClusterForecast(parts, len(cut.windows), link_seconds)


def _forecast_rows(gathered: Gathered) -> ClusterForecast:
    """Return what each machine's rows would take, and how long a token."""
    checkpoint = gathered.checkpoint
    plans = [
        plan_rows(checkpoint, share, gathered.settings_of(machine), layers_only=machine > 0)
        for machine, share in enumerate(share_rows(checkpoint.config, gathered.budgets))
    ]
    count = len(checkpoint.layers)
    parts = _parts(gathered, [tuple(range(count))] * len(plans), plans, None)
    slowest = max(part.trip_seconds for part in parts)
    return ClusterForecast(parts, 0, GATHERS * count * slowest)


def _parts(
    gathered: Gathered,
    layers: Sequence[tuple[int, ...]],
    plans: Sequence[Plan],
    disks: Sequence[float] | None,
) -> list[MachinePart]:
    """Measure arithmetic and links, and return all machines' parts."""
    weights, trips = _arithmetic_rates(gathered), [0.0]
    size = arithmetic_of(gathered.checkpoint, gathered.settings).dtype.size
    hidden = memoryview(bytes(gathered.checkpoint.config.hidden_size * size))
    trips += [_trip_seconds(peer, hidden) for peer in gathered.peers]
    names = ["this machine", *(peer.machine.name for peer in gathered.peers)]
    disk_rates: Sequence[float | None] = disks or [None] * len(plans)
    return [
        MachinePart(name, own, plan, None if plan.resident else disk, rate, trip)
        for name, own, plan, disk, rate, trip in zip(
            names, layers, plans, disk_rates, weights, trips, strict=True
        )
    ]


def _arithmetic_rates(gathered: Gathered) -> list[float]:
    """Measure the arithmetic of all machines, one after the other: bytes of weights per second."""
    with borrowed_stream():
        rates = [measure_step(gathered.checkpoint, gathered.settings).weights_per_second]
    for peer in gathered.peers:
        told = {"ask": "arithmetic", "settings": shared_settings(gathered.settings)}
        answer, _ = peer.request(told)
        rates.append(float(answer["answer"]))
    return rates


def _trip_seconds(peer: Peer, hidden: memoryview) -> float:
    """Measure the time of a token's hidden state to a machine and back."""
    times = []
    for _ in range(ROUND_TRIPS):
        begun = time.perf_counter()
        peer.request({"ask": "echo"}, [hidden])
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
