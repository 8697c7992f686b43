"""Which records of a step each machine gets, so that all end together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

from edgellm.training.learners.learner import TrainingItem

Item = TypeVar("Item", bound=TrainingItem)

FIRST_STEPS = 3
"""Steps that are shared evenly, and measured; in the very first, memory is touched."""

LOOKED_AT = 8
"""Steps after which it is looked whether machines still end together."""

UNEVEN = 1.2
"""By so much the slowest machine's share has to take longer than the best shares would."""


@dataclass(slots=True)
class Shares:
    """Shares by the seconds per token that machines were measured to take.

    They stay until machines end apart, so that a run that goes on has the same ones, and the same
    bits: sums of other shares round otherwise.

    Attributes:
        rooms: tokens of a step that each machine has memory for.
        paces: seconds per token of each machine, or any numbers in their proportion.
        trips: seconds of a step's numbers to each machine and back.
        is_fixed: whether they stay as they are.
        measured: whether paces are seconds, of this run's steps or of a saved one's.
    """

    rooms: Sequence[int]
    paces: list[float]
    trips: list[float]
    is_fixed: bool = False
    measured: bool = False
    _seen: list[list[float]] = field(default_factory=list)

    def document(self) -> dict[str, Any] | None:
        """Return what was measured, to be saved; None: nothing was."""
        return {"paces": self.paces, "trips": self.trips} if self.measured else None

    def go_on(self, document: object) -> None:
        """Share as was saved, where that was of as many machines."""
        if self.is_fixed or not isinstance(document, dict):
            return
        paces, trips = document.get("paces"), document.get("trips")
        if _are_seconds(paces, len(self.paces)) and _are_seconds(trips, len(self.trips)):
            self.paces, self.trips, self.measured = list(paces), list(trips), True

    def of(self, items: Sequence[Item]) -> list[list[Item]]:
        """Return each machine's records, in the order in which they are given.

        The longest records are given away first, each to the machine that would end soonest.
        """
        taken = [0] * len(self.rooms)
        owner: dict[int, int] = {}
        for place in sorted(range(len(items)), key=lambda place: -items[place].length):
            length = items[place].length
            # rooms together hold a whole step, so one of them has some left
            able = [each for each in range(len(taken)) if taken[each] < self.rooms[each]]
            best = min(able, key=lambda each: self._end(each, taken[each] + length))
            taken[best] += length
            owner[place] = best
        return [
            [item for place, item in enumerate(items) if owner[place] == each]
            for each in range(len(taken))
        ]

    def ended(self, tokens: Sequence[int], seconds: Sequence[float]) -> bool:
        """Note a step: each machine's tokens and seconds. Return whether shares are others now."""
        if self.is_fixed or not all(tokens):
            return False
        self._seen.append([own / count for own, count in zip(seconds, tokens, strict=True)])
        if len(self._seen) < (LOOKED_AT if self.measured else FIRST_STEPS):
            return False
        settled = statistics.median if self.measured else min
        paces = [settled(each) for each in zip(*self._seen, strict=True)]
        self._seen.clear()
        if self.measured and not self._are_apart(tokens, paces):
            return False
        self.paces, self.measured = paces, True
        return True

    def _end(self, machine: int, tokens: int) -> float:
        """Return when a machine ends with so many tokens."""
        trip = self.trips[machine] if self.measured else 0.0
        return trip + tokens * self.paces[machine]

    def _are_apart(self, tokens: Sequence[int], paces: Sequence[float]) -> bool:
        """Return whether shares of these tokens end much later than the best ones would."""
        ends = [
            trip + count * pace for trip, count, pace in zip(self.trips, tokens, paces, strict=True)
        ]
        waited = sum(trip / pace for trip, pace in zip(self.trips, paces, strict=True))
        best = (sum(tokens) + waited) / sum(1 / pace for pace in paces)
        return max(ends) > UNEVEN * best


def _are_seconds(values: object, count: int) -> TypeGuard[list[float]]:
    """Return whether a saved value is as many times."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(each, float) and 0 <= each < math.inf for each in values)
    )
