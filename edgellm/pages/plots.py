"""Plots for a page without scripts: bars as HTML, lines and points as SVG.

Colour says nothing that shape and words do not. Texts are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 300
"""Of a drawing in its own units; on a screen of 390 pixels a unit is a little less than a pixel."""

LEFT, RIGHT, TOP, BOTTOM = 52, 24, 12, 40
"""Margins round the area between the axes."""

STYLES = 8
"""Colours, patterns, dashes and marks there are before they begin again."""

MARKS: Sequence[Callable[[float, float], str]] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
    lambda x, y: f'<rect x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 5:.1f}l4.6 8.4h-9.2z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 5.4:.1f}l5.4 5.4l-5.4 5.4l-5.4 -5.4z"/>',
    lambda x, y: f'<path class="open" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>',
    lambda x, y: f'<path d="M{x:.1f} {y + 5:.1f}l4.6 -8.4h-9.2z"/>',
    lambda x, y: f'<circle class="open" cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
    lambda x, y: (
        f'<rect class="open" x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>'
    ),
)
"""The shapes that stand for a point, each at its place."""

DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 2", "1 3", "12 4", "6 2 1 2 1 2")
"""Lengths of strokes and gaps of a line, in the drawing's units."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart.

    Attributes:
        name: stands above it.
        value: its length.
        text: stands behind it.
        style: number of its colour and pattern.
        low: the least of its repetitions; None where they are not shown.
        high: the largest of them.
    """

    name: str
    value: float
    text: str
    style: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) that belong together.

    Attributes:
        name: stands in the legend.
        points: theirs.
        style: the number of their colour and mark.
        marked: whether each point has its mark; hundreds of them are a line alone.
        faint: whether they stand behind others, thin and pale.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    marked: bool = True
    faint: bool = False


@dataclass(frozen=True, slots=True)
class _Axes:
    """The area from ``left`` to ``right`` and ``bottom`` to ``top`` in the units of the data."""

    left: float
    right: float
    bottom: float
    top: float
    logarithmic: bool

    def x(self, value: float) -> float:
        """Return the place across the drawing."""
        low, high = self.left, self.right
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        fraction = 0.5
        if high > low:
            fraction = (value - low) / (high - low)
        return LEFT + fraction * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the place down the drawing."""
        fraction = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM)


def bars(shown: Sequence[Bar], *, limit: float | None = None) -> str:
    """Return horizontal bars, each with its name above it and its figure behind it.

    Args:
        shown: the bars, the first on top.
        limit: the value that fills the whole width; None: the largest.
    """
    full = limit or max((bar.high or bar.value for bar in shown), default=0.0) or 1.0

    def percent(value: float) -> float:
        return min(100.0, 100 * value / full)

    lines = []
    for bar in shown:
        noise = ""
        if bar.low is not None and bar.high is not None:
            begin = percent(bar.low)
            length = max(0.0, percent(bar.high) - begin)
            noise = f'<i style="left:{begin:.2f}%;width:{length:.2f}%"></i>'
        style, width = bar.style % STYLES, percent(bar.value)
        lines.append(
            f'<div class="bar"><span class="name">{escape(bar.name)}</span>'
            f'<span class="track"><b class="s{style}" style="width:{width:.2f}%"></b>{noise}</span>'
            f'<span class="value">{escape(bar.text)}</span></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def chart(
    series: Sequence[Series],
    *,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float] | None = None,
    y_low: float = 0.0,
    y_limit: float | None = None,
    logarithmic: bool = False,
    connected: bool = True,
) -> str:
    """Return a figure of lines, or of points alone, over two axes; a legend in words and marks.

    Args:
        series: what is drawn; y is ``y_low`` or more, and x above 0 where it is logarithmic.
        x_name: stands under the horizontal axis.
        y_name: stands above the figure.
        x_ticks: places on the horizontal axis; None: round numbers.
        y_low: where the vertical axis begins, or a little below.
        y_limit: where it ends; None: a little above the highest point.
        logarithmic: whether equal ratios of x are equal distances.
        connected: whether lines join the points of a series.
    """
    points = [point for one in series for point in one.points]
    xs = [x for x, _ in points]
    left = min(xs)
    if not logarithmic:
        left = 0.0
    right = max(xs)
    ticks = x_ticks or round_ticks(left, right)
    if not x_ticks:
        right = max(right, ticks[-1])
    highest = max(y for _, y in points) if y_limit is None else y_limit
    levels = round_ticks(y_low, highest)
    axes = _Axes(left, right, levels[0], levels[-1], logarithmic)
    label = f"{escape(y_name)} over {escape(x_name)}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        *(grid_line(level, axes.y(level)) for level in levels),
        *(
            axis_text(f"{axes.x(tick):.1f}", HEIGHT - BOTTOM + 16, tick_text(tick))
            for tick in ticks
        ),
        axis_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name),
    ]
    for one in series:
        places = [(axes.x(x), axes.y(y)) for x, y in sorted(one.points)]
        drawn = ""
        if connected and len(places) > 1:
            drawn = _line(one.style, "L".join(f"{x:.1f} {y:.1f}" for x, y in places))
        if one.marked or not drawn:
            drawn += marks(one.style, places)
        parts.append(_behind(drawn) if one.faint else drawn)
    drawing = f"{''.join(parts)}</svg>"
    legend = _legend(series, connected=connected)
    return f"<figure><figcaption>{escape(y_name)}</figcaption>{drawing}{legend}</figure>"


def round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from ``low`` or a little below up to ``high`` or a little above.

    They are 1, 2, 2.5 or 5 times a power of ten apart.
    """
    span = high - low
    # ticks closer together than this would be the same number once they are rounded
    resolution = 1e-9 * max(abs(low), abs(high))
    if not span > resolution or not math.isfinite(span):
        return [low, low + 1.0]
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * 5 >= span)
    first = math.floor(low / step)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_text(value: float) -> str:
    """Return a number for an axis: ``0.25``, ``15k``, ``1.5e-4``."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    if 0 < abs(value) < 0.001:  # with all its zeros it is wider than its place
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def grid_line(value: float, y: float) -> str:
    """Return a horizontal line of the grid, and its number at the left."""
    return (
        f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick_text(value)}</text>'
    )


def axis_text(x: float | str, y: float, text: str) -> str:
    """Return a text below an axis, its middle at x."""
    return f'<text x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _line(style: int, path: str) -> str:
    number = style % STYLES
    dashes = DASHES[number]
    return f'<path class="line c{number}" stroke-dasharray="{dashes}" d="M{path}"/>'


def _behind(drawing: str) -> str:
    return f'<g class="faint">{drawing}</g>'


def marks(style: int, places: Sequence[tuple[float, float]]) -> str:
    """Return the shape of a style at some places."""
    number = style % STYLES
    return f'<g class="mark c{number}">{"".join(MARKS[number](x, y) for x, y in places)}</g>'


def _legend(series: Sequence[Series], *, connected: bool) -> str:
    items = []
    for one in series:
        picture = marks(one.style, [(19, 8)]) if one.marked or not connected else ""
        if connected:
            picture = _line(one.style, "1 8H37") + picture
        if one.faint:
            picture = _behind(picture)
        key = f'<svg class="key" viewBox="0 0 38 16" aria-hidden="true">{picture}</svg>'
        items.append(f"<li>{key}{escape(one.name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
