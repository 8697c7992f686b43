"""Which machine has which layers, by their memories and the speeds of their disks.

Where all layers fit into the memories together, each machine has adjacent ones, as many as its
memory holds. Where they do not, the time of a token is that of the slowest disk: a machine with
budget m and disk d reads what its layers are more than m, in d, and layers go one by one to where
that leaves the least time. Their windows then take turns, so that all disks read all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.console.units import plural
from edgellm.errors import ConfigError, MemoryBudgetError
from edgellm.memory_plan.plan import Plan

WINDOW_LAYERS = 1
"""Layers of a window where machines take turns: the fewer, the more hops, the steadier the disks.

On two throttled disks windows of 1, 2 and 4 layers reach 0.99, 0.96 and 0.97 of what the disks
could give: a hop takes less than a layer's read."""

PlanOf = Callable[[int, int], Plan]
"""Returns the plan of a machine, by its number, with this many layers. Raises MemoryBudgetError."""


@dataclass(frozen=True, slots=True)
class Window:
    """Adjacent layers of one machine.

    Attributes:
        machine: its number; 0 is this one.
        layers: as the machine counts its own.
        first: the number of the first one in the model.
    """

    machine: int
    layers: range
    first: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Which layers each machine has, and in which order tokens go through them.

    Attributes:
        layers: of each machine, the numbers of its layers, in rising order.
        windows: all of them, in the order of the model.
    """

    layers: tuple[tuple[int, ...], ...]
    windows: tuple[Window, ...]


def choose_counts(
    layers: int, machines: int, plan_of: PlanOf, disks: Sequence[float] | None
) -> list[int]:
    """Return how many layers each machine has.

    Args:
        layers: of the model.
        machines: how many there are.
        plan_of: plans a machine's part.
        disks: bytes per second of each machine's disk; None: all alike.

    Raises:
        MemoryBudgetError: a machine's budget holds not even one layer.
        ConfigError: there are fewer layers than machines.
    """
    if layers < machines:
        raise ConfigError(
            f"the model has {plural(layers, 'layer')} for {machines} machines",
            hint="leave some of the machines out, or use --split rows: each has some of all layers",
        )
    disks = disks or [1.0] * machines
    counts = [1] * machines

    def cost(machine: int, count: int) -> tuple[float, float]:
        try:
            plan = plan_of(machine, count)
        except MemoryBudgetError:
            return float("inf"), 0.0
        return plan.streamed_bytes / disks[machine], plan.total_bytes / plan.budget

    for machine in range(machines):
        plan_of(machine, 1)
    for _ in range(layers - machines):
        costs = [cost(machine, counts[machine] + 1) for machine in range(machines)]
        counts[costs.index(min(costs))] += 1
    return counts


def cut_layers(counts: Sequence[int], *, in_turns: bool, window: int = WINDOW_LAYERS) -> Cut:
    """Return the layers of each machine, as many as ``counts`` says.

    Args:
        counts: of each machine.
        in_turns: whether their windows take turns; else each has adjacent layers.
        window: layers of a window, where they take turns.
    """
    owners: list[int] = []
    left = list(counts)
    while any(left):
        # the one whose turn it is has the largest share of its layers still to come
        machine = max(range(len(left)), key=lambda one: (left[one] / counts[one], -one))
        size = min(window, left[machine]) if in_turns else left[machine]
        owners += [machine] * size
        left[machine] -= size
    if not in_turns:
        owners.sort()
    return cut_of(owners, len(counts))


def cut_of(owners: Sequence[int], machines: int) -> Cut:
    """Return the cut in which each layer is of the machine that ``owners`` says."""
    layers: list[list[int]] = [[] for _ in range(machines)]
    windows: list[Window] = []
    for number, owner in enumerate(owners):
        place = len(layers[owner])
        layers[owner].append(number)
        if windows and windows[-1].machine == owner:
            last = windows.pop()
            windows.append(Window(owner, range(last.layers.start, place + 1), last.first))
        else:
            windows.append(Window(owner, range(place, place + 1), number))
    return Cut(tuple(map(tuple, layers)), tuple(windows))
