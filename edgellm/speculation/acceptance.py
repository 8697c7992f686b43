"""The acceptance rate of draft tokens and the cost of steps, measured as the text goes."""

from __future__ import annotations

from collections.abc import Sequence

FADE = 0.96
"""What a measurement still weighs after the next one; the last 25 or so count: 1 / (1 - 0.96)."""

PRIOR_WEIGHT = 2.0
"""Measurements that the assumption made before the first one weighs as much as."""

OUTLIER = 3.0
"""Times the expected seconds; a step that took longer counts as that: something else ran."""

MEAN_FADE = 0.92
"""As ``FADE``, for tokens not yet drafted: those of a draft that is no good are to end soon."""

MIN_FIRST_ROW = 0.1
"""Of the mean step; the first row of a step never counts as cheaper."""


class AcceptanceRate:
    """The share of draft tokens that is accepted, for each confidence bucket.

    Args:
        assumed: the rate of each bucket before anything was measured.
    """

    def __init__(self, assumed: Sequence[float]) -> None:
        # The rate is the mean of a Beta distribution: counts of accepted and of refused tokens,
        # with the assumption as counts made before. All of them fade.
        self._accepted = [PRIOR_WEIGHT * rate for rate in assumed]
        self._all = [PRIOR_WEIGHT] * len(assumed)
        self._mean = sum(assumed) / len(assumed)

    def observe(self, bucket: int, *, accepted: bool) -> None:
        """Take note of a draft token."""
        self._accepted[bucket] = FADE * self._accepted[bucket] + accepted
        self._all[bucket] = FADE * self._all[bucket] + 1
        self._mean = MEAN_FADE * self._mean + (1 - MEAN_FADE) * accepted

    def of(self, bucket: int) -> float:
        """Return the acceptance rate of a confidence bucket."""
        return self._accepted[bucket] / self._all[bucket]

    @property
    def mean(self) -> float:
        """The acceptance rate of a token that is still to be drafted, in an unknown bucket."""
        return self._mean


class StepCost:
    """The seconds of a step by the rows that it sends through the model: a straight line.

    With x further rows after the first and y seconds, the line y = a + b x is fitted by least
    squares over measurements whose weights fade, and its slope is drawn towards an assumed one.
    With W, Sx, Sxx, Sy, Sxy the weighted sums of 1, x, x^2, y and x y, and b0 the assumed slope of
    weight L = ``PRIOR_WEIGHT``::

        minimize  sum w (y - a - b x)^2 + L (b - b0)^2

        b = (Sxy / W - Sx Sy / W^2 + b0 L / W) / (Sxx / W - (Sx / W)^2 + L / W)
        a = Sy / W - b Sx / W

    This is ridge regression towards b0 (Hoerl and Kennard 1970) with exponential forgetting, as in
    recursive least squares. Steps of one row and of several fade apart, so that what several cost
    is still known after a long time without draft tokens.

    Args:
        extra_row_cost: the assumed cost of a further row, as a share of the first one's.
    """

    def __init__(self, extra_row_cost: float) -> None:
        self._extra_row_cost = extra_row_cost
        self._single = _LineSums()
        self._multiple = _LineSums()
        self._is_warm = False

    def observe(self, rows: int, seconds: float) -> None:
        """Take note of a step; not of the first of several rows, in which kernels are compiled."""
        if rows > 1 and not self._is_warm:
            self._is_warm = True
            return
        if self._single.weight + self._multiple.weight > 1:
            seconds = min(seconds, OUTLIER * self.seconds(rows))
        sums = self._multiple
        if rows == 1:
            sums = self._single
        sums.add(rows - 1, seconds)

    def seconds(self, rows: int) -> float:
        """Return the expected seconds of a step; 1 a first row until one was measured."""
        weight = self._single.weight + self._multiple.weight
        if weight == 0:
            return 1.0 + self._extra_row_cost * (rows - 1)
        # x is 0 in steps of one row, so only the others add to the sums with x
        mean_x = self._multiple.x / weight
        mean_y = (self._single.y + self._multiple.y) / weight
        variance = self._multiple.xx / weight - mean_x**2
        covariance = self._multiple.xy / weight - mean_x * mean_y
        # b0: further rows cost their assumed share of a first row, such that the mean step is right
        prior_slope = self._extra_row_cost * mean_y / (1 + self._extra_row_cost * mean_x)
        prior_weight = PRIOR_WEIGHT / weight
        slope = (covariance + prior_weight * prior_slope) / (variance + prior_weight)
        slope = max(0.0, slope)
        first_row = max(mean_y - slope * mean_x, MIN_FIRST_ROW * mean_y)
        return first_row + slope * (rows - 1)


class _LineSums:
    """Weighted sums over measurements (x, y) that fade: of 1, x, x^2, y and x y."""

    def __init__(self) -> None:
        self.weight = self.x = self.xx = self.y = self.xy = 0.0

    def add(self, x: float, y: float) -> None:
        self.weight = FADE * self.weight + 1
        self.x = FADE * self.x + x
        self.xx = FADE * self.xx + x * x
        self.y = FADE * self.y + y
        self.xy = FADE * self.xy + x * y


class DraftCost:
    """The seconds that a draft token takes to propose: a mean over measurements that fade."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Take note of some draft tokens."""
        if self._tokens > 0:
            seconds = min(seconds, OUTLIER * self.seconds_each * tokens)
        self._tokens = FADE * self._tokens + tokens
        self._seconds = FADE * self._seconds + seconds

    @property
    def seconds_each(self) -> float:
        """Expected seconds of one; 0 while nothing was measured."""
        if self._tokens == 0:
            return 0.0
        return self._seconds / self._tokens
