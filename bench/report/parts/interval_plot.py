"""Points with intervals over a logarithmic axis; their areas say a third thing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgellm.bench.report.parts.plots import (
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
    round_ticks,
)

LARGEST = 15.0
SMALLEST = 3.5
"""Radii of points, in the drawing's units."""

CAP = 5.0
"""Half the length of the strokes that end an interval."""

LETTER = 6.6
"""About the width of a letter."""


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
    """

    x: float
    y: float
    name: str
    line: int = 0
    low: float | None = None
    high: float | None = None
    weight: float | None = None
    is_filled: bool = True


def interval_plot(
    points: Sequence[Point],
    *,
    x_name: str,
    y_name: str,
    across: float | None = None,
    x_ticks: Sequence[float] | None = None,
) -> str:
    """Return a figure of points with their intervals, each with its name.

    Args:
        points: what is drawn, one at least.
        x_name: stands under the horizontal axis, which is logarithmic.
        y_name: stands above the figure.
        across: a height at which a dotted line is drawn.
        x_ticks: places on the horizontal axis; None: 1, 2 and 5 times powers of ten.
    """
    axes = _Axes(points, across)
    ticks = x_ticks or log_ticks(axes.left, axes.right)
    label = f"{escape(y_name)} over {escape(x_name)}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        *(grid_line(value, axes.y(value)) for value in axes.levels),
        *(
            axis_text(axes.x(tick), HEIGHT - BOTTOM + 16, _tick(tick))
            for tick in ticks
            if LEFT <= axes.x(tick) <= WIDTH - RIGHT / 2
        ),
        axis_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name),
    ]
    if across is not None:
        height = axes.y(across)
        parts.append(f'<path class="across" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
    parts += _lines(points, axes)
    # small ones on top of large ones
    ordered = sorted(points, key=lambda point: -(point.weight or 0.0))
    parts += [_drawn(point, axes) for point in ordered]
    parts += _names(points, axes)
    drawing = f"{''.join(parts)}</svg>"
    return f"<figure><figcaption>{escape(y_name)}</figcaption>{drawing}</figure>"


def log_ticks(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times powers of ten between two numbers above 0.

    Where these are fewer than two, the two themselves.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, (last - first) // 6)
    factors = (1, 2, 5) if step == 1 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1, step) for factor in factors]
    inside = [value for value in found if low <= value <= high]
    if len(inside) < 2:
        return sorted({low, high})
    return inside


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
        heights += [across] if across is not None else []
        self.levels = round_ticks(min(heights), max(heights))

    def x(self, value: float) -> float:
        """Return the place across the drawing."""
        low, high = math.log(self.left), math.log(self.right)
        return LEFT + (math.log(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the place down the drawing."""
        low, high = self.levels[0], self.levels[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _radius(point: Point) -> float:
    return max(SMALLEST, LARGEST * math.sqrt(point.weight or 0.0))


def _lines(points: Sequence[Point], axes: _Axes) -> list[str]:
    """Return the lines that join points."""
    lines = []
    for number in dict.fromkeys(point.line for point in points):
        joined = sorted((point.x, point.y) for point in points if point.line == number)
        if len(joined) < 2:
            continue
        path = "L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in joined)
        style = number % STYLES
        lines.append(
            f'<path class="line c{style}" stroke-dasharray="{DASHES[style]}" d="M{path}"/>'
        )
    return lines


def _drawn(point: Point, axes: _Axes) -> str:
    """Return a point and its interval."""
    style = point.line % STYLES
    x, y, radius = axes.x(point.x), axes.y(point.y), _radius(point)
    kind = "disc" if point.is_filled else "ring"
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


def _names(points: Sequence[Point], axes: _Axes) -> list[str]:
    """Return the names of points, each where no other one is, as far as there is room."""
    taken: list[tuple[float, float, float, float]] = []
    shown = []
    for point in sorted(points, key=lambda point: point.x):
        x, y, radius = axes.x(point.x), axes.y(point.y), _radius(point)
        width = LETTER * len(point.name)
        right, left = x + radius + 4, x - radius - 4 - width
        places = [(right, y - 5), (right, y + 13), (left, y - 5), (left, y + 13)]
        places += [(right, y - 5 - 15 * number) for number in (1, 2, 3)]
        inside = [
            (at, base)
            for at, base in places
            if at >= LEFT and at + width <= WIDTH and TOP < base < HEIGHT - BOTTOM
        ]
        free = [
            (at, base)
            for at, base in inside
            if not any(
                at < end and begin < at + width and base - 12 < bottom and top < base + 3
                for begin, top, end, bottom in taken
            )
        ]
        at, base = (free or inside or [(max(LEFT, min(right, WIDTH - width)), y - 5)])[0]
        taken.append((at, base - 12, at + width, base + 3))
        shown.append(f'<text class="name" x="{at:.1f}" y="{base:.1f}">{escape(point.name)}</text>')
    return shown


def _tick(value: float) -> str:
    if value >= 10_000 or value < 0.001:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.3g}"
