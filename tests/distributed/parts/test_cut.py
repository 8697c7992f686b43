"""Which machine has which layers: the least time there is, in turns that keep disks busy."""

from dataclasses import dataclass
from itertools import product

import pytest

from edgellm.distributed.parts.cut import choose_counts, cut_layers
from edgellm.errors import MemoryBudgetError

RING = 2


@dataclass
class Held:
    """What is read of a plan: of layers of one byte, in a memory of so many."""

    streamed_bytes: int
    total_bytes: int
    budget: int


def planner(memories):
    """Plans as the real one's: beyond memory, two layers are in transit, and none is pinned."""

    def plan_of(machine, layers):
        memory = memories[machine]
        if layers <= memory:
            return Held(0, layers, memory)
        if memory < RING:
            raise MemoryBudgetError("too small")
        return Held(layers - (memory - RING), memory, memory)

    return plan_of


def slowest(plan_of, counts, disks):
    return max(
        plan_of(place, own).streamed_bytes / disks[place] for place, own in enumerate(counts)
    )


@pytest.mark.parametrize(
    ("layers", "memories", "disks"),
    [(12, [5, 4, 3], [6, 3, 2]), (14, [9, 2, 2], [1, 5, 1]), (9, [2, 2, 8], [1, 1, 1])],
)
def test_no_other_shares_take_less_time(layers, memories, disks):
    plan_of = planner(memories)
    counts = choose_counts(layers, len(memories), plan_of, disks)
    best = min(
        slowest(plan_of, others, disks)
        for others in product(range(1, layers), repeat=len(memories))
        if sum(others) == layers
    )
    assert sum(counts) == layers
    assert slowest(plan_of, counts, disks) == best


def token_seconds(cut, streamed, read_seconds, *, passes=12):
    """Return the time of a token whose arithmetic takes none, with two buffers a machine.

    A disk reads the next layer of its machine as soon as a buffer is free.
    """
    now, ends = 0.0, []
    disks = [RING * seconds for seconds in read_seconds]
    ready = [[seconds, RING * seconds] for seconds in read_seconds]
    for _ in range(passes):
        for window in cut.windows:
            own = window.machine
            for layer in window.layers:
                if layer not in streamed[own]:
                    continue
                now = max(now, ready[own].pop(0))
                disks[own] = max(disks[own], now) + read_seconds[own]
                ready[own].append(disks[own])
        ends.append(now)
    return ends[-1] - ends[-2]


@pytest.mark.parametrize(
    ("counts", "pinned", "rates"),
    [
        ([16, 16], [5, 5], [4, 4]),
        ([18, 9, 5], [5, 3, 1], [6, 3, 2]),
        ([20, 5, 7], [2, 1, 3], [9, 2, 2]),
    ],
)
def test_in_turns_no_disk_waits(counts, pinned, rates):
    streamed = [set(range(pin, count)) for pin, count in zip(pinned, counts, strict=True)]
    reads = [1 / rate for rate in rates]
    limit = max(len(own) * seconds for own, seconds in zip(streamed, reads, strict=True))
    in_turns = token_seconds(cut_layers(counts, in_turns=True), streamed, reads)
    assert in_turns == pytest.approx(limit)
    assert token_seconds(cut_layers(counts, in_turns=False), streamed, reads) > 1.2 * limit
