"""Sums of 32-bit lanes: from the integers that products leave to one lane a group.

Integers are summed exactly, so the order does not matter; it is chosen for shuffles within 128
bits, which every processor has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.values import Value

_QUAD = 4
"""Lanes in 128 bits."""


@dataclass(frozen=True, slots=True)
class PartialSums:
    """Vectors of one shape, one per token, and the group that each lane belongs to."""

    vectors: Sequence[Value]
    groups: Sequence[int]


def one_lane_a_group(e: Emitter, leaf: Callable[[int], PartialSums], leaves: int) -> list[Value]:
    """Return the sums of each group's lanes: a vector a token, groups in their order.

    Args:
        e: the kernel.
        leaf: makes the partial sums of a number; all together have each group equally often.
        leaves: how many there are, a power of two. They are made depth first, so that few registers
            are in use.
    """

    def tree(first: int, count: int) -> PartialSums:
        if count == 1:
            return leaf(first)
        half = count // 2
        low = tree(first, half)
        return _add_neighbours(e, low, tree(first + half, half))

    sums = tree(0, leaves)
    # one vector a token is left; where a group still has several lanes, its halves are added
    while len(set(sums.groups)) < len(sums.groups):
        half = len(sums.groups) // 2
        low = _part(e, sums, 0, half)
        high = _part(e, sums, half, half)
        sums = _add_neighbours(e, low, high)
    order = sorted(range(len(sums.groups)), key=sums.groups.__getitem__)
    if order == list(range(len(order))):
        return list(sums.vectors)
    return [e.shuffle(value, order) for value in sums.vectors]


def _part(e: Emitter, sums: PartialSums, start: int, lanes: int) -> PartialSums:
    """Return ``lanes`` lanes of each vector from ``start`` on."""
    vectors = [e.part(value, start, lanes) for value in sums.vectors]
    return PartialSums(vectors, sums.groups[start : start + lanes])


def _add_neighbours(e: Emitter, low: PartialSums, high: PartialSums) -> PartialSums:
    """Add neighbours of the same group within two vectors: lanes, or else quads of lanes.

    Lanes, where two neighbours are of one group (a digit is a group)::

        low 0011 2233   high 4455 6677   ->   0145 2367

    Quads, where a quad has four groups and its neighbour the same four::

        low 0145 0145   high 2367 2367   ->   0145 2367
    """
    groups = [*low.groups, *high.groups]
    lanes = len(low.groups)
    if groups[0] == groups[1]:
        distance = 1
        # the even lanes of a quad of one vector, then of the same quad of the other
        places = [
            place
            for first in range(0, lanes, _QUAD)
            for place in (first, first + 2, lanes + first, lanes + first + 2)
        ]
    else:
        distance = _QUAD
        # the even quads of one vector, then of the other
        places = [
            first + lane for first in range(0, len(groups), 2 * _QUAD) for lane in range(_QUAD)
        ]
    partners = [place + distance for place in places]
    assert all(
        groups[place] == groups[partner] for place, partner in zip(places, partners, strict=True)
    ), "neighbours are of one group"
    vectors = []
    for x, y in zip(low.vectors, high.vectors, strict=True):
        left = e.shuffle(x, places, y)
        vectors.append(e.b.add(left, e.shuffle(x, partners, y)))
    return PartialSums(vectors, [groups[place] for place in places])
