"""Points with intervals over a logarithmic axis; their areas say a third thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from edgellm.bench.report.parts.label_places import Box, place_label
from edgellm.pages.plots import (
    BOTTOM,
    DASHES,
    HEIGHT,
    LEFT,
    RIGHT,
    STYLES,
    TOP,
    WIDTH,
    axis_text,
    grid_line,
    marks,
    round_ticks,
)

LARGEST = 15.0
SMALLEST = 3.5
"""Radii of points, in the drawing's units."""

CAP = 5.0
"""Half the length of the strokes that end an interval."""

FEWEST_TICKS = 3
ROOM, FLAT = 0.06, 0.02
"""Room above and below: of the range of heights, or of their size where all are one."""

LINE_PARTS = 12
"""Parts of a line between two points that names keep away from."""

TICK_ROOM = 34.0
"""From the middle of one number below the axis to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a plot.

    Attributes:
        x: above 0.
        y: its height.
        name: stands beside it.
        line: points of the same number are joined, in the order of x; also the colour's number.
        low: the lower end of its interval; None: it has none.
        high: the upper end.
        weight: its area, as a share of the largest; None: the smallest.
        is_filled: whether it is drawn filled, and not as a ring.
        mark: the number of the shape that stands for it instead of a circle.
    """

    x: float
    y: float
    name: str
    line: int = 0
    low: float | None = None
    high: float | None = None
    weight: float | None = None
    is_filled: bool = True
    mark: int | None = None


def interval_plot(
    points: Sequence[Point],
    *,
    x_name: str,
    y_name: str,
    across: float | None = None,
    x_ticks: Sequence[float] | None = None,
    line_names: Mapping[int, str] | None = None,
    mark_names: Mapping[int, str] | None = None,
) -> str:
    """Return a figure of points with their intervals, each with its name.

    Args:
        points: what is drawn, one at least.
        x_name: stands under the horizontal axis, which is logarithmic.
        y_name: stands above the figure.
        across: a height at which a dotted line is drawn.
        x_ticks: places on the horizontal axis; None: round numbers.
            Those too close to the one before are left out.
        line_names: by the number of a line, what a legend says of it.
        mark_names: the same by the number of a shape.
    """
    axes = _Axes(points, across)
    ticks = axes.apart(x_ticks or log_ticks(axes.left, axes.right))
    label = f"{escape(y_name)} over {escape(x_name)}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        *(grid_line(value, axes.y(value)) for value in axes.levels),
        *(axis_text(f"{axes.x(tick):.1f}", HEIGHT - BOTTOM + 16, _tick(tick)) for tick in ticks),
        axis_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name),
    ]
    if across is not None:
        height = axes.y(across)
        parts.append(f'<path class="across" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
    parts += _lines(points, axes)
    # small ones on top of large ones
    ordered = sorted(points, key=lambda point: -(point.weight or 0.0))
    parts += [_drawn(point, axes) for point in ordered]
    parts += _names(points, axes, across)
    drawing = f"{''.join(parts)}</svg>"
    keys = {_line(number): name for number, name in (line_names or {}).items()}
    keys |= {marks(number, [(19, 10)]): name for number, name in (mark_names or {}).items()}
    return f"<figure><figcaption>{escape(y_name)}</figcaption>{drawing}{_legend(keys)}</figure>"


def interval_legend(texts: Mapping[str, str]) -> str:
    """Return signs of such plots, each with what it means.

    Args:
        texts: by sign: ``disc``, ``ring``, ``interval``, ``across``, ``line`` or ``area``.
    """
    return _legend({_SIGNS[sign]: text for sign, text in texts.items()})


def _legend(texts: Mapping[str, str]) -> str:
    """Return drawings of 38 by 20, each with what it means; nothing of none."""
    if not texts:
        return ""
    items = [
        f'<li><svg class="key" viewBox="0 0 38 20" aria-hidden="true">{drawing}</svg>'
        f"<span>{escape(text)}</span></li>"
        for drawing, text in texts.items()
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _line(number: int, path: str = "1 10H37") -> str:
    style = number % STYLES
    return f'<path class="line c{style}" stroke-dasharray="{DASHES[style]}" d="M{path}"/>'


_SIGNS: Mapping[str, str] = {
    "disc": '<circle class="disc c0" cx="19" cy="10" r="8"/>'
    '<circle class="centre" cx="19" cy="10" r="1.8"/>',
    "ring": '<circle class="ring c0" cx="19" cy="10" r="8"/>'
    '<circle class="centre" cx="19" cy="10" r="1.8"/>',
    "interval": '<path class="interval" d="M19 2V18M14 2h10M14 18h10"/>'
    '<circle class="centre" cx="19" cy="10" r="1.8"/>',
    "across": '<path class="across" d="M1 10H37"/>',
    "line": '<path class="line c0" d="M1 10H37"/>',
    "area": '<circle class="ring c0" cx="8" cy="13" r="4"/>'
    '<circle class="ring c0" cx="26" cy="10" r="9"/>',
}


def log_ticks(low: float, high: float) -> list[float]:
    """Return some round numbers between two numbers above 0; without any, the two themselves."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        numbers = (factor * 10.0**power for power in range(first, last + 1) for factor in factors)
        found = [value for value in numbers if low <= value <= high]
        if len(found) >= FEWEST_TICKS:
            break
    if len(found) < 2:
        return [low, high]
    return found


class _Axes:
    """The area of a plot: logarithmic across, from the lowest end of an interval to the highest."""

    def __init__(self, points: Sequence[Point], across: float | None) -> None:
        xs = [point.x for point in points]
        # room at either side, so that large points and their names are inside
        room = max(1.25, (max(xs) / min(xs)) ** 0.12)
        self.left, self.right = min(xs) / room, max(xs) * room
        heights = [
            value
            for point in points
            for value in (point.y, point.low, point.high)
            if value is not None
        ]
        if across is not None:
            heights.append(across)
        low, high = min(heights), max(heights)
        # points of one height lie in the middle, and large ones inside
        room = ROOM * (high - low) or FLAT * abs(low) or 1.0
        self.levels = round_ticks(low - room, high + room)

    def x(self, value: float) -> float:
        """Return the place across the drawing."""
        low, high = math.log(self.left), math.log(self.right)
        return LEFT + (math.log(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def apart(self, ticks: Sequence[float]) -> list[float]:
        """Return the places on the axis between which there is room for numbers."""
        found: list[float] = []
        for tick in sorted(ticks):
            if not found or self.x(tick) - self.x(found[-1]) >= TICK_ROOM:
                found.append(tick)
        return found

    def y(self, value: float) -> float:
        """Return the place down the drawing."""
        low, high = self.levels[0], self.levels[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _radius(point: Point) -> float:
    return max(SMALLEST, LARGEST * math.sqrt(point.weight or 0.0))


def _lines(points: Sequence[Point], axes: _Axes) -> list[str]:
    """Return the lines that join points."""
    numbers = dict.fromkeys(point.line for point in points)
    lines = []
    for number, joined in zip(numbers, _joined(points, axes), strict=True):
        if joined:
            lines.append(_line(number, "L".join(f"{x:.1f} {y:.1f}" for x, y in joined)))
    return lines


def _drawn(point: Point, axes: _Axes) -> str:
    """Return a point and its interval."""
    style = point.line % STYLES
    x, y, radius = axes.x(point.x), axes.y(point.y), _radius(point)
    if point.mark is not None:
        return marks(point.mark, [(x, y)])
    kind = "ring"
    if point.is_filled:
        kind = "disc"
    parts = [
        f'<circle class="{kind} c{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>',
    ]
    if point.low is not None and point.high is not None:
        bottom, top = axes.y(point.low), axes.y(point.high)
        parts.append(
            f'<path class="interval" d="M{x:.1f} {bottom:.1f}V{top:.1f}'
            f'M{x - CAP:.1f} {bottom:.1f}h{2 * CAP:g}M{x - CAP:.1f} {top:.1f}h{2 * CAP:g}"/>'
        )
    parts.append(f'<circle class="centre" cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>')
    return "".join(parts)


def _names(points: Sequence[Point], axes: _Axes, across: float | None) -> list[str]:
    """Return the names of points, each near its own and as far as possible on nothing else."""
    taken = [box for point in points for box in _boxes_of(point, axes)]
    taken += _boxes_of_lines(points, axes)
    if across is not None:
        taken.append(Box(LEFT, axes.y(across) - 1, WIDTH - RIGHT, axes.y(across) + 1))
    area = Box(LEFT + 2, 0, WIDTH, HEIGHT - BOTTOM)
    shown = []
    for point in sorted(points, key=lambda point: point.x):
        place = axes.x(point.x), axes.y(point.y)
        left, base = place_label(point.name, place, _radius(point), area=area, taken=taken)
        shown.append(
            f'<text class="name" x="{left:.1f}" y="{base:.1f}">{escape(point.name)}</text>'
        )
    return shown


def _boxes_of(point: Point, axes: _Axes) -> list[Box]:
    """Return what a point and its interval cover."""
    x, y, radius = axes.x(point.x), axes.y(point.y), _radius(point)
    boxes = [Box(x - radius, y - radius, x + radius, y + radius)]
    if point.low is not None and point.high is not None:
        boxes.append(Box(x - CAP, axes.y(point.high) - 2, x + CAP, axes.y(point.low) + 2))
    return boxes


def _boxes_of_lines(points: Sequence[Point], axes: _Axes) -> list[Box]:
    """Return small parts of the lines that join points."""
    boxes = []
    for joined in _joined(points, axes):
        for (x, y), (to_x, to_y) in pairwise(joined):
            for share in (number / LINE_PARTS for number in range(LINE_PARTS + 1)):
                at, height = x + share * (to_x - x), y + share * (to_y - y)
                boxes.append(Box(at - 3, height - 3, at + 3, height + 3))
    return boxes


def _joined(points: Sequence[Point], axes: _Axes) -> list[list[tuple[float, float]]]:
    """Return the places of points that lines join, line by line; single points have none."""
    lines = []
    for number in dict.fromkeys(point.line for point in points):
        joined = sorted((axes.x(one.x), axes.y(one.y)) for one in points if one.line == number)
        if len(joined) < 2:
            joined = []
        lines.append(joined)
    return lines


def _tick(value: float) -> str:
    if value >= 10_000 or value < 0.001:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.3g}"
