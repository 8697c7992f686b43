"""The time of a step on several machines and on one, by arithmetic and links."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgellm.console.units import plural, seconds, size
from edgellm.distributed.remote.link_speed import trip_seconds
from edgellm.distributed.remote.peer import Peer

MEASURED_BYTES, TRIPS = 1 << 20, 3
"""Of the numbers of a step, and how often they are sent to measure a link."""


def best_seconds(tokens: int, paces: Sequence[float], trips: Sequence[float]) -> float:
    """Return the least time of a step, its tokens shared so that all end together.

    Who would still wait for numbers then has no share. The first machine has a trip of 0.

    Args:
        tokens: of the step.
        paces: seconds per token of each machine.
        trips: seconds of a step's numbers to each and back.
    """
    taking = sorted(zip(trips, paces, strict=True))
    while True:
        waited = sum(trip / pace for trip, pace in taking)
        found = (tokens + waited) / sum(1 / pace for _, pace in taking)
        if taking[-1][0] < found or len(taking) == 1:
            return found
        taking.pop()


def said_of_links(
    names: Sequence[str],
    nbytes: int,
    tokens: int,
    paces: Sequence[float],
    trips: Sequence[float],
) -> list[str]:
    """Return what a step sends and how long that takes, in sentences, and whether it pays.

    Args:
        names: of the machines, this one first.
        nbytes: of all numbers.
        tokens, paces, trips: as ``best_seconds`` has them.
    """
    each = ", ".join(
        f"{name} {seconds(trip)}" for name, trip in zip(names[1:], trips[1:], strict=True)
    )
    said = [f"each step sends {size(nbytes)} to each machine, and gets as much back: {each}"]
    alone, together = tokens * paces[0], best_seconds(tokens, paces, trips)
    step = f"a step of {plural(tokens, 'token')}, the most it may have,"
    if together < alone:
        said.append(
            f"{step} takes {seconds(together)} on all of them, and {seconds(alone)} on this "
            "machine alone"
        )
        return said
    from_tokens = math.ceil(min(trips[1:]) / paces[0])
    said.append(
        f"{step} takes {seconds(alone)} on this machine alone, less than numbers are on their way: "
        f"leave out --machines, or take a larger --batch, from {plural(from_tokens, 'token')} on"
    )
    return said


def numbers_seconds(peer: Peer, nbytes: int) -> float:
    """Measure the time of so many bytes to a machine and back, of many by some of them."""
    some = min(nbytes, MEASURED_BYTES)
    return trip_seconds(peer, some, TRIPS) * nbytes / some
