"""Which records of a step each machine gets, so that all end together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, TypeVar

from edgellm.training.together.link_costs import best_seconds


class Sized(Protocol):
    """A record, of which its length is enough to know."""

    @property
    def length(self) -> int:
        """Tokens that go through the model."""


Item = TypeVar("Item", bound=Sized)

FIRST_STEPS = 3
"""Steps that are shared evenly, and measured; in the very first, memory is touched."""

LOOKED_AT = 8
"""Steps after which it is looked whether machines still end together."""

UNEVEN = 1.2
"""By so much the slowest machine's share has to take longer than the best shares would."""

PROBE_STEPS = 64
"""At least so many steps are between two in which a machine without a share has a record."""

PROBE_COST = 50
"""A probe that is forecast to take as long as k steps comes in every 50 k at most."""


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
    _seen: dict[int, list[float]] = field(default_factory=dict)
    _steps: int = 0
    _trying: set[int] = field(default_factory=set)

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

    def of(self, items: Sequence[Item], step: int | None = None) -> list[list[Item]]:
        """Return each machine's records, in the order in which they are given.

        The longest records are given away first, each to the machine that would end soonest. One
        that has none then is given the shortest record now and then: it may be faster than it was,
        and all are measured anew where it ends before the others.

        Args:
            items: of a step.
            step: its number; None: nobody is tried.
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
        if step is not None and not self.is_fixed:
            usual = max(self._end(each, taken[each]) for each in set(owner.values()))
            places = sorted(owner, key=lambda place: items[place].length)
            tried = self._tried(step, taken, items[places[0]].length, usual)
            self._trying = set(tried) if self.measured else set()
            for machine in tried:
                if places:
                    owner[places.pop(0)] = machine
        return [
            [item for place, item in enumerate(items) if owner[place] == each]
            for each in range(len(taken))
        ]

    def _tried(self, step: int, taken: Sequence[int], tokens: int, usual: float) -> list[int]:
        """Return the machines without a share that are to have so many tokens of a step.

        It follows from the step's number and what is saved, so that a run that goes on does so.

        Args:
            step: its number.
            taken: tokens that each machine has.
            tokens: of the record that each is given.
            usual: seconds of the step without that.
        """
        idle = [each for each, own in enumerate(taken) if not own and self.rooms[each]]
        if not self.measured:
            return [each for each in idle if len(self._seen_of(each)) < FIRST_STEPS]
        due = []
        for each in idle:
            every = PROBE_STEPS
            while every < PROBE_COST * self._end(each, tokens) / usual:
                every *= 2
            if step % every == every - 1:
                due.append(each)
        return due

    def ended(self, tokens: Sequence[int], seconds: Sequence[float]) -> bool:
        """Note a step: each machine's tokens and seconds. Return whether shares are others now."""
        if self.is_fixed:
            return False
        if self._are_of_use(tokens, seconds):
            # a pass costs the same for few tokens as for many, which one record does not show
            self.paces, self.measured = [1.0] * len(self.paces), False
            self._seen.clear()
            return True
        self._steps += 1
        for machine, (count, own) in enumerate(zip(tokens, seconds, strict=True)):
            if count:
                self._seen_of(machine).append(own / count)
        if self.measured:
            is_early = self._steps < LOOKED_AT
        else:
            counts = [len(self._seen_of(each)) for each, room in enumerate(self.rooms) if room]
            is_early = min(counts) < FIRST_STEPS
        if is_early:
            return False
        settled = statistics.median if self.measured else min
        paces = [
            settled(seen) if (seen := self._seen_of(each)) else pace
            for each, pace in enumerate(self.paces)
        ]
        self._seen.clear()
        self._steps = 0
        if self.measured and not self._are_apart(tokens, paces):
            return False
        self.paces, self.measured = paces, True
        return True

    def _are_of_use(self, tokens: Sequence[int], seconds: Sequence[float]) -> bool:
        """Return whether a machine that was tried has ended before those that have shares."""
        ends = [trip + own for trip, own in zip(self.trips, seconds, strict=True)]
        usual = [end for each, end in enumerate(ends) if tokens[each] and each not in self._trying]
        tried = [ends[each] for each in self._trying if tokens[each]]
        return bool(tried and usual) and min(tried) < max(usual)

    def _seen_of(self, machine: int) -> list[float]:
        """Return the seconds per token that were seen of a machine since paces were looked at."""
        return self._seen.setdefault(machine, [])

    def _end(self, machine: int, tokens: int) -> float:
        """Return when a machine ends with so many tokens."""
        trip = self.trips[machine] if self.measured else 0.0
        return trip + tokens * self.paces[machine]

    def _are_apart(self, tokens: Sequence[int], paces: Sequence[float]) -> bool:
        """Return whether shares of these tokens end much later than the best ones would."""
        ends = [
            trip + count * pace
            for trip, count, pace in zip(self.trips, tokens, paces, strict=True)
            if count
        ]
        return max(ends) > UNEVEN * best_seconds(sum(tokens), paces, self.trips)


def _are_seconds(values: object, count: int) -> TypeGuard[list[float]]:
    """Return whether a saved value is as many times."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(each, float) and 0 <= each < math.inf for each in values)
    )
