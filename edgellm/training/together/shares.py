"""Which records of a step each machine gets, so that all end together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

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
        is_fixed: whether they stay as they are.
        measured: whether they come of this run's steps.
    """

    rooms: Sequence[int]
    paces: list[float]
    is_fixed: bool = False
    measured: bool = False
    _seen: list[list[float]] = field(default_factory=list)

    def go_on(self, paces: Sequence[float]) -> None:
        """Take paces that were measured before."""
        if not self.is_fixed and all(isinstance(pace, float) and pace > 0 for pace in paces):
            self.paces, self.measured = list(paces), True

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
            best = min(able, key=lambda each: (taken[each] + length) * self.paces[each])
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
        if not self.measured:
            if len(self._seen) < FIRST_STEPS:
                return False
            paces = [min(each) for each in zip(*self._seen, strict=True)]
            self.measured = True
        else:
            if len(self._seen) < LOOKED_AT:
                return False
            paces = [statistics.median(each) for each in zip(*self._seen, strict=True)]
            best = sum(tokens) / sum(1 / pace for pace in paces)
            slowest = max(pace * count for pace, count in zip(paces, tokens, strict=True))
            if slowest < UNEVEN * best:
                self._seen.clear()
                return False
        self._seen.clear()
        self.paces = paces
        return True
