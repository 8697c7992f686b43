"""Plots for a page without scripts: bars as HTML, lines and points as SVG. Colour says nothing that shape and words do not.

Every text that comes from a record is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 12, 40
"""Of the drawing in its own units; the page scales it, and at 390 pixels' width a unit is a little less than a pixel."""

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
DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 2", "1 3", "12 4", "6 2 1 2 1 2")


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart: what it is, how long, and what stands behind it; ``low`` and ``high`` bound its repetitions."""

    name: str
    value: float
    text: str
    style: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Points (x, y) that belong together."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0


def bars(found: Sequence[Bar], *, limit: float | None = None) -> str:
    """Horizontal bars, each with its name above it and its figure behind it; ``limit`` is the whole width."""
    whole = limit or max((bar.high or bar.value for bar in found), default=0.0) or 1.0
    lines = []
    for bar in found:
        width = min(100.0, 100 * bar.value / whole)
        noise = ""
        if bar.low is not None and bar.high is not None:
            begin, end = (min(100.0, 100 * value / whole) for value in (bar.low, bar.high))
            noise = f'<i style="left:{begin:.2f}%;width:{max(0.0, end - begin):.2f}%"></i>'
        lines.append(
            f'<div class="bar"><span class="name">{escape(bar.name)}</span>'
            f'<span class="track"><b class="s{bar.style % STYLES}" style="width:{width:.2f}%"></b>{noise}</span>'
            f'<span class="value">{escape(bar.text)}</span></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def chart(
    lines: Sequence[Line],
    *,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float] | None = None,
    y_limit: float | None = None,
    logarithmic: bool = False,
    connected: bool = True,
) -> str:
    """Lines (or points alone) over two axes, y from 0, up to ``y_limit`` if there is one; a legend in words and marks."""
    points = [point for line in lines for point in line.points]
    xs = [x for x, _ in points]
    left, right = min(xs), max(xs)
    if not logarithmic:
        left = 0.0
    ticks = list(x_ticks or steps(left, right))
    right = max(right, ticks[-1]) if not x_ticks else right
    levels = steps(0.0, y_limit or max(y for _, y in points))
    top = levels[-1] or 1.0

    def across(x: float) -> float:
        low, high, here = (
            (math.log(value) for value in (left, right, x)) if logarithmic else (left, right, x)
        )
        share = (here - low) / (high - low) if high > low else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_name)} over {escape(x_name)}">',
        *(
            f'<path class="grid" d="M{LEFT} {up(level):.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{up(level) + 4:.1f}" text-anchor="end">{short(level)}</text>'
            for level in levels
        ),
        *(
            f'<text x="{across(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(tick)}</text>'
            for tick in ticks
        ),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>',
    ]
    for line in lines:
        style = line.style % STYLES
        places = [(across(x), up(y)) for x, y in sorted(line.points)]
        if connected and len(places) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(
                f'<path class="line c{style}" stroke-dasharray="{DASHES[style]}" d="M{path}"/>'
            )
        parts.append(
            f'<g class="mark c{style}">{"".join(MARKS[style](x, y) for x, y in places)}</g>'
        )
    parts.append("</svg>")
    return f"<figure><figcaption>{escape(y_name)}</figcaption>{''.join(parts)}{_legend(lines, connected=connected)}</figure>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, prose: str | None = None) -> str:
    """A table whose cells are texts; it scrolls by itself where the page is narrow. The column ``prose`` has broken lines."""
    kinds = [' class="long"' if text == prose else "" for text in heads]
    head = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>'
        for text, kind in zip(heads, kinds, strict=True)
    )
    lines = (
        "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True))
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, str]) -> str:
    """Names and what they are."""
    return (
        "<dl>"
        + "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items()
        )
        + "</dl>"
    )


def steps(low: float, high: float) -> list[float]:
    """Round numbers from 0 or ``low`` up to ``high`` or a little above: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low, low + 1.0]
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * 5 >= span)
    first = math.floor(low / step)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: ``0.25``, ``1.5k``."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}"


def _legend(lines: Sequence[Line], *, connected: bool) -> str:
    items = []
    for line in lines:
        style = line.style % STYLES
        stroke = (
            f'<path class="line c{style}" stroke-dasharray="{DASHES[style]}" d="M1 8H37"/>'
            if connected
            else ""
        )
        mark = f'<g class="mark c{style}">{MARKS[style](19, 8)}</g>'
        picture = f'<svg class="key" viewBox="0 0 38 16" aria-hidden="true">{stroke}{mark}</svg>'
        items.append(f"<li>{picture}{escape(line.name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
