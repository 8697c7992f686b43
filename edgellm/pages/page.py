"""A page as a document: one file, no scripts, nothing from elsewhere; light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

TEMPLATE = Path(__file__).with_name("page.html")

LIGHT = ("#1f5fa8", "#b4520a", "#1d7a4f", "#8a3a8f", "#8f6a00", "#0b7285", "#a61e4d", "#495057")
"""Colours of series on white."""

DARK = ("#7db3f0", "#f2a55f", "#6fd0a2", "#d79be0", "#e2c04f", "#66d0e2", "#f58fb0", "#c0c6cc")
"""The same on black."""

PATTERNS = (
    "",
    "repeating-linear-gradient(45deg,var(--paper) 0 2px,transparent 2px 7px),",
    "repeating-linear-gradient(90deg,var(--paper) 0 2px,transparent 2px 7px),",
    "repeating-linear-gradient(-45deg,var(--paper) 0 2px,transparent 2px 7px),",
    "repeating-linear-gradient(0deg,var(--paper) 0 2px,transparent 2px 5px),",
    "repeating-linear-gradient(45deg,var(--paper) 0 4px,transparent 4px 8px),",
    "repeating-linear-gradient(90deg,var(--paper) 0 4px,transparent 4px 8px),",
    "repeating-linear-gradient(-45deg,var(--paper) 0 4px,transparent 4px 8px),",
)
"""Laid over the colour of a bar, so that bars differ in print and for eyes that see no colours."""


def page(title: str, body: str) -> str:
    """Return a whole document; ``body`` is HTML whose texts are escaped already."""
    series = "".join(
        # .sN fills a bar, .cN draws the marks and lines of a chart
        f".s{number}{{background:{pattern}var(--c{number})}}"
        f".c{number}{{stroke:var(--c{number});fill:var(--c{number})}}.line.c{number}{{fill:none}}"
        for number, pattern in enumerate(PATTERNS)
    )
    template = Template(TEMPLATE.read_text(encoding="utf-8").rstrip())
    light, dark = _variables(LIGHT), _variables(DARK)
    return template.substitute(
        title=escape(title), light=light, dark=dark, series=series, body=body
    )


def _variables(colours: Sequence[str]) -> str:
    return ";".join(f"--c{number}:{colour}" for number, colour in enumerate(colours))
