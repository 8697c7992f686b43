"""Sizes, rates and times as people write them."""

from __future__ import annotations

UNITS = ("bytes", "KB", "MB", "GB", "TB")


def size(nbytes: float) -> str:
    """Return ``4.05 GB``: powers of 1000, three digits."""
    if round(nbytes, 1) < 1000:
        return f"{round(nbytes)} {UNITS[0]}"
    value, unit = float(nbytes), 0
    while round(value, 1) >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{_three_digits(value)} {UNITS[unit]}"


def rate(nbytes_per_second: float) -> str:
    """Return ``2.11 GB/s``."""
    return f"{size(nbytes_per_second)}/s"


def count(number: int) -> str:
    """Return ``6.95 million``; small numbers as they are."""
    for power, word in ((10**9, "billion"), (10**6, "million")):
        if number >= power:
            return f"{_three_digits(number / power)} {word}"
    return f"{number:,}"


def seconds(value: float) -> str:
    """Return ``420 ms``, ``12.3 s``, ``2 min 05 s`` or ``2 h 01 min``."""
    # Limits lie where the unit before would be rounded up to 1000 ms or 100 s.
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s"


def short_time(value: float) -> str:
    """Return a time in milliseconds where it is below a tenth of a second."""
    return f"{1000 * value:.1f} ms" if value < 0.1 else seconds(value)


def speed(tokens_per_second: float) -> str:
    """Return ``42.0 tokens/s``, and for slow models the seconds that one takes."""
    text = f"{_three_digits(tokens_per_second)} tokens/s"
    if tokens_per_second < 1:
        text += f" ({seconds(1 / tokens_per_second)} each)"
    return text


def speed_range(low: float, high: float) -> str:
    """Return ``17.1 to 54.0 tokens/s``, or one figure where both are within a tenth."""
    if high < 1.1 * low:
        return speed((low + high) / 2)
    return f"{_three_digits(low)} to {_three_digits(high)} tokens/s"


def percent(fraction: float) -> str:
    """Return ``93%``."""
    return f"{fraction * 100:.0f}%"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Return ``1 layer``, ``2 layers``; ``nouns`` are several where that takes more than an s."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number:,} {nouns or noun + 's'}"


def _three_digits(value: float) -> str:
    """Return three digits, or more where there are more before the point."""
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"
