"""Sums of 32-bit lanes: from the words that products leave to one lane a group.

Integers are summed exactly, so the order does not matter; it is chosen for shuffles within 128
bits, which every processor has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.kernels.codegen.emitter import Emitter, Value

_QUAD = 4
"""Lanes in 128 bits."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Vectors of one shape, one a token, and the group that each lane belongs to."""

    vectors: Sequence[Value]
    groups: Sequence[int]


def one_lane_a_group(e: Emitter, leaf: Callable[[int], Sums], leaves: int) -> list[Value]:
    """Sum the lanes of each group; a vector a token, groups in their order.

    Args:
        e: the function.
        leaf: makes the sums of a number; all together hold each group equally often.
        leaves: how many there are, a power of two. They are made depth first, so that few registers
            are in use.
    """

    def tree(first: int, count: int) -> Sums:
        if count == 1:
            return leaf(first)
        half = count // 2
        return _added(e, tree(first, half), tree(first + half, half))

    found = tree(0, leaves)
    while len(set(found.groups)) < len(found.groups):
        half = len(found.groups) // 2
        low, high = (
            Sums(
                [e.part(value, start, half) for value in found.vectors],
                found.groups[start : start + half],
            )
            for start in (0, half)
        )
        found = _added(e, low, high)
    order = sorted(range(len(found.groups)), key=found.groups.__getitem__)
    in_place = order == list(range(len(order)))
    return [value if in_place else e.shuffle(value, order) for value in found.vectors]


def _added(e: Emitter, low: Sums, high: Sums) -> Sums:
    """Neighbours of the same group added, within two vectors: lanes, or where those differ, quarters of 128 bits."""
    groups = [*low.groups, *high.groups]
    if groups[0] == groups[1]:
        places = [
            place
            for quad in range(len(low.groups) // _QUAD)
            for place in _pairs(quad, len(low.groups))
        ]
        apart = 1
    else:
        places = [
            8 * pair + lane for pair in range(len(groups) // (2 * _QUAD)) for lane in range(_QUAD)
        ]
        apart = _QUAD
    pairs = zip(low.vectors, high.vectors, strict=True)
    added = [
        e.b.add(e.shuffle(x, places, y), e.shuffle(x, [place + apart for place in places], y))
        for x, y in pairs
    ]
    assert all(groups[place] == groups[place + apart] for place in places), (
        "neighbours are of one group"
    )
    return Sums(added, [groups[place] for place in places])


def _pairs(quad: int, lanes: int) -> list[int]:
    """The even lanes of a quarter of one vector, and of the same quarter of another that stands behind it."""
    first = _QUAD * quad
    return [first, first + 2, lanes + first, lanes + first + 2]
