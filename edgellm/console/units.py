"""Sizes, rates and times as people write them."""

from __future__ import annotations

UNITS = ("bytes", "KB", "MB", "GB", "TB")


def size(nbytes: float) -> str:
    """``4.05 GB``: powers of 1000, three digits."""
    value, unit = float(nbytes), 0
    while round(value, 1) >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{round(value)} {UNITS[unit]}" if unit == 0 else f"{_digits(value)} {UNITS[unit]}"


def rate(nbytes_per_second: float) -> str:
    """``2.11 GB/s``."""
    return f"{size(nbytes_per_second)}/s"


def count(number: int) -> str:
    """``6.95 million``; small numbers as they are."""
    for power, word in ((10**9, "billion"), (10**6, "million")):
        if number >= power:
            return f"{_digits(number / power)} {word}"
    return f"{number:,}"


def seconds(value: float) -> str:
    """``0.42 s``, ``12.3 s``, ``2 min 05 s``."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def speed(tokens_per_second: float) -> str:
    """``42.0 tokens/s``, or for slow models the seconds that one takes."""
    text = f"{_digits(tokens_per_second)} tokens/s"
    return text if tokens_per_second >= 1 else f"{text} ({seconds(1 / tokens_per_second)} each)"


def share(part: float) -> str:
    """``93%``."""
    return f"{part * 100:.0f}%"


def plural(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _digits(value: float) -> str:
    """Three digits, more where the number has more before the point."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
