"""The part of each machine of a cluster before it is loaded, and the time of a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.distributed.gathered import Gathered, part_planner
from edgellm.distributed.parts.cut import Cut, choose_counts, cut_layers
from edgellm.distributed.parts.rows import require_rows
from edgellm.distributed.rates import Rates
from edgellm.distributed.row_choice import choose_shares, gather_seconds
from edgellm.errors import MemoryBudgetError
from edgellm.memory_plan.plan import Plan


@dataclass(frozen=True, slots=True)
class MachinePart:
    """One machine's part, before it is loaded.

    Attributes:
        name: the machine's.
        layers: the numbers of the layers of which it has something.
        share: the fraction of all layers' weights that it has.
        plan: how they would lie in its memory.
        disk: bytes per second of its disk; None where it reads nothing.
        weights: bytes of weights per second through its arithmetic.
        trip_seconds: a token's hidden state to it and back; 0 for this machine.
    """

    name: str
    layers: tuple[int, ...]
    share: float
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

    def as_dict(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {
            "name": self.name,
            "layers": list(self.layers),
            "share": self.share,
            "pinned": len(self.plan.pinned),
            "budget": self.plan.budget,
            "total_bytes": self.plan.total_bytes,
            "adapter_bytes": self.plan.adapter_bytes,
            "streamed_bytes": self.plan.streamed_bytes,
            "disk_bytes_per_second": self.disk,
            "weights_per_second": self.weights,
            "trip_seconds": self.trip_seconds,
        }


@dataclass(frozen=True, slots=True)
class KindForecast:
    """A split of one kind, and how long a token would take.

    Attributes:
        parts: of each machine.
        windows: in how many parts tokens go through the layers; 0: all machines have rows of each.
        link_seconds: per token, on the way between machines.
        output: where the output matrix is, in words; None: on the first machine, as always.
    """

    parts: Sequence[MachinePart]
    windows: int
    link_seconds: float
    output: str | None = None

    @property
    def read_seconds(self) -> float:
        """Seconds per token that the disks need, side by side."""
        return max(part.read_seconds for part in self.parts)

    @property
    def arithmetic_seconds(self) -> float:
        """Seconds per token of arithmetic: one machine after the other, or rows at once."""
        together = sum if self.windows else max
        return together(part.arithmetic_seconds for part in self.parts)

    @property
    def seconds_per_token(self) -> float:
        """Disks read while machines compute and send: the slower of the two counts."""
        return max(self.read_seconds, self.arithmetic_seconds + self.link_seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {
            "machines": [part.as_dict() for part in self.parts],
            "context": self.parts[0].plan.context,
            "windows": self.windows,
            "output_matrix": self.output,
            "read_seconds": self.read_seconds,
            "arithmetic_seconds": self.arithmetic_seconds,
            "link_seconds": self.link_seconds,
            "seconds_per_token": self.seconds_per_token,
            "tokens_per_second": 1 / self.seconds_per_token,
        }


@dataclass(frozen=True, slots=True)
class ChosenCut:
    """Which machine has which layers.

    Attributes:
        cut: the layers.
        plans: of each machine, how they would lie in its memory.
    """

    cut: Cut
    plans: Sequence[Plan]

    @property
    def is_resident(self) -> bool:
        """Whether no machine has to read."""
        return all(plan.resident for plan in self.plans)


def choose_cut(gathered: Gathered, rates: Rates) -> ChosenCut:
    """Choose which machine has which layers; disks are measured only where one has to read."""
    in_memory = _cut_by(gathered, None)
    if in_memory.is_resident:
        return in_memory
    return _cut_by(gathered, rates.disks)


def fits(gathered: Gathered) -> bool:
    """Return whether all layers fit into the memories of the machines, so that none has to read.

    Raises MemoryBudgetError, ConfigError as ``choose_cut`` does.
    """
    return _cut_by(gathered, None).is_resident


def _cut_by(gathered: Gathered, disks: Sequence[float] | None) -> ChosenCut:
    """Return the cut for disks of these rates; None: as if no machine had to read."""
    plan_of, count = part_planner(gathered), len(gathered.checkpoint.layers)
    counts = choose_counts(count, len(gathered.budgets), plan_of, disks)
    plans = [plan_of(machine, layers) for machine, layers in enumerate(counts)]
    return ChosenCut(cut_layers(counts, in_turns=disks is not None), plans)


def forecast_windows(gathered: Gathered, rates: Rates) -> KindForecast:
    """Return what machines with windows of layers would take; errors are those of ``load``."""
    chosen = choose_cut(gathered, rates)
    cut, count = chosen.cut, len(gathered.checkpoint.layers)
    shares = [len(layers) / count for layers in cut.layers]
    parts = _parts(gathered, rates, list(zip(cut.layers, shares, chosen.plans, strict=True)))
    hops = sum(rates.trips[window.machine] for window in cut.windows)
    return KindForecast(parts, len(cut.windows), hops)


def forecast_rows(gathered: Gathered, rates: Rates) -> KindForecast:
    """Return what machines with rows of every matrix would take; errors are those of ``load``."""
    checkpoint = gathered.checkpoint
    require_rows(checkpoint, gathered.settings)
    chosen = choose_shares(gathered, rates)
    inner = checkpoint.config.intermediate_size
    fractions = [(share.inner[1] - share.inner[0]) / inner for share in chosen.shares]
    layers = tuple(range(len(checkpoint.layers)))
    held = [(layers, share, plan) for share, plan in zip(fractions, chosen.plans, strict=True)]
    parts = _parts(gathered, rates, held)
    links = gather_seconds(gathered, rates, chosen.shares) + chosen.output_seconds
    return KindForecast(parts, 0, links, chosen.reason)


def forecast_alone(gathered: Gathered, rates: Rates) -> KindForecast | None:
    """Return what this machine would take without the others; None: it has not the memory."""
    layers = tuple(range(len(gathered.checkpoint.layers)))
    try:
        plan = part_planner(gathered)(0, len(layers))
    except MemoryBudgetError:
        return None
    disk = None if plan.resident else rates.disks[0]
    part = MachinePart("this machine", layers, 1.0, plan, disk, rates.weights[0], 0.0)
    return KindForecast([part], windows=1, link_seconds=0.0)


def _parts(
    gathered: Gathered, rates: Rates, held: Sequence[tuple[tuple[int, ...], float, Plan]]
) -> list[MachinePart]:
    """Return the parts of all machines: layers, share and plan of each, and its speeds."""
    names = ["this machine", *(peer.machine.name for peer in gathered.peers)]
    pages = any(not plan.resident for _, _, plan in held)
    disks: Sequence[float | None] = rates.disks if pages else [None] * len(held)
    return [
        MachinePart(name, layers, share, plan, None if plan.resident else disk, weights, trip)
        for name, (layers, share, plan), disk, weights, trip in zip(
            names, held, disks, rates.weights, rates.trips, strict=True
        )
    ]
