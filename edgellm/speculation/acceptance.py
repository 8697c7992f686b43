"""How often guesses are right, and what passes cost: both measured as the text goes."""

from __future__ import annotations

from collections.abc import Sequence

FADE = 0.96
"""What a measurement still weighs after the next one; the last 25 or so count."""

PRIOR_WEIGHT = 2.0
"""Measurements that what is assumed before weighs as much as."""

OUTLIER = 3.0
"""A pass that took more than so many times what was expected counts as that: something else ran."""

MEAN_FADE = 0.92
"""As ``FADE``, for guesses of which nothing is known yet: those of a draft that is no good are to end soon."""


class AcceptanceRate:
    """How often guesses of each trust are right."""

    def __init__(self, assumed: Sequence[float]) -> None:
        self._assumed = tuple(assumed)
        self._right = [PRIOR_WEIGHT * chance for chance in assumed]
        self._all = [PRIOR_WEIGHT] * len(self._right)
        self._mean = sum(assumed) / len(self._right)

    def judge(self, trust: int, *, right: bool) -> None:
        """Take note of a guess that was right or wrong."""
        self._right[trust] = FADE * self._right[trust] + right
        self._all[trust] = FADE * self._all[trust] + 1
        self._mean = MEAN_FADE * self._mean + (1 - MEAN_FADE) * right

    def of(self, trust: int) -> float:
        """The chance of a guess."""
        return self._right[trust] / self._all[trust]

    @property
    def mean(self) -> float:
        """The chance of a guess of which nothing is known yet."""
        return self._mean


class StepCost:
    """Seconds that a pass of some rows takes: so much for one, and so much for each further one.

    Passes of one row and of several fade apart, so that what several cost is still known after a
    long time without guesses.

    Args:
        share: what a further row costs of the first, before it was measured.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._one, self._several = _Sums(), _Sums()
        self._warm = False

    def take(self, rows: int, seconds: float) -> None:
        """Take note of a pass; not of the first of several rows, in which kernels are made."""
        if rows > 1 and not self._warm:
            self._warm = True
            return
        if self._one.weight + self._several.weight > 1:
            seconds = min(seconds, OUTLIER * self.of(rows))
        (self._one if rows == 1 else self._several).take(rows - 1, seconds)

    def of(self, rows: int) -> float:
        """The seconds that a pass takes; 1 for a row while nothing was measured."""
        one, several = self._one, self._several
        weight = one.weight + several.weight
        if weight == 0:
            return 1.0 + self._share * (rows - 1)
        x, y = several.x / weight, (one.y + several.y) / weight
        # A line through what was measured, drawn towards the assumed one where rows hardly
        # differed.
        drawn = PRIOR_WEIGHT / weight
        spread, both = several.xx / weight - x * x, several.xy / weight - x * y
        slope = max(
            0.0, (both + drawn * self._share * y / (1 + self._share * x)) / (spread + drawn)
        )
        return max(y - slope * x, 0.1 * y) + slope * (rows - 1)


class _Sums:
    """Sums for a line: of x, its square, y, and their product, over measurements that fade."""

    def __init__(self) -> None:
        self.weight = self.x = self.xx = self.y = self.xy = 0.0

    def take(self, x: float, y: float) -> None:
        self.weight = FADE * self.weight + 1
        self.x, self.xx = FADE * self.x + x, FADE * self.xx + x * x
        self.y, self.xy = FADE * self.y + y, FADE * self.xy + x * y


class DraftCost:
    """Seconds that a guess takes."""

    def __init__(self) -> None:
        self._weight = self._seconds = 0.0

    def take(self, guesses: int, seconds: float) -> None:
        """Take note of some guesses."""
        if self._weight > 0:
            seconds = min(seconds, OUTLIER * self.each * guesses)
        self._weight = FADE * self._weight + guesses
        self._seconds = FADE * self._seconds + seconds

    @property
    def each(self) -> float:
        """The seconds of one; 0 while nothing was measured."""
        return self._seconds / self._weight if self._weight else 0.0
