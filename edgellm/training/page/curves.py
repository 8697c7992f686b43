"""Figures of steps as lines: smoothed, and with no more points than are seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

MOST_POINTS = 300
"""Of a line; a page of ten thousand steps stays small."""

SPAN_SHARE, MOST_SPAN = 0.05, 50
"""Steps that a smoothed figure is the mean of, about: of all steps, and at most."""

Points = list[tuple[float, float]]


def points_of(steps: Iterable[Mapping[str, Any]], name: str) -> Points:
    """Return a figure of steps over their numbers; those without it are left out."""
    pairs = ((step["step"], step.get(name)) for step in steps)
    return [(float(number), float(value)) for number, value in pairs if value is not None]


class Smoothing:
    """A mean in which later figures weigh more, and the first ones no more than they should.

    Args:
        span: figures that it is the mean of, about.
    """

    def __init__(self, span: float) -> None:
        self._kept = 1 - 1 / max(1.0, span)
        self._sum, self._weight = 0.0, 0.0

    def add(self, value: float) -> float:
        """Take a figure, and return the mean."""
        self._sum = self._kept * self._sum + value
        self._weight = self._kept * self._weight + 1
        return self._sum / self._weight


def smoothed(points: Sequence[tuple[float, float]]) -> Points:
    """Return points at the mean height of their neighbours on both sides: no curve lags behind."""
    half = round(min(MOST_SPAN, SPAN_SHARE * len(points)) / 2)
    sums = [0.0, *accumulate(y for _, y in points)]
    line = []
    for place, (x, _) in enumerate(points):
        begin, end = max(0, place - half), min(len(points), place + half + 1)
        line.append((x, (sums[end] - sums[begin]) / (end - begin)))
    return line


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> Points:
    """Return at most so many points, means of neighbours; the last one stays where it is."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // (most - 1))
    parts = [points[begin : begin + size] for begin in range(0, len(points), size)]
    means = [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts
    ]
    return [*means, points[-1]]
