"""Values of metrics as people read them: points, nats, and a sign where they are a change."""

from __future__ import annotations

from collections.abc import Mapping

from edgellm.bench.metrics.metric import Metric
from edgellm.bench.metrics.table import METRICS

LARGE = 1e7
HIGHER, LOWER = "higher is better", "lower is better"


_SHOWN: Mapping[str, tuple[float, int, str]] = {
    "share": (100.0, 1, "points"),
    "score": (1.0, 1, "points"),
    "nats": (1.0, 3, "nats"),
    "bits/byte": (1.0, 4, "bits/byte"),
    "perplexity": (1.0, 3, ""),
    "words": (1.0, 1, "words"),
    "tokens": (1.0, 1, "tokens"),
    "1-10": (1.0, 2, "points"),
}
"""By a metric's unit: what values are multiplied by, digits behind the point, their unit's name."""

MORE_DIGITS = 2
"""At most so many more where changes are so small that they would be shown as 0."""


def value_text(name: str, value: float) -> str:
    """Return a metric's value without its unit; shares are of 100."""
    factor, digits, _ = _shown(name)
    value *= factor
    if value and not _is_seen(value, digits):
        digits += 1
    return _written(value, digits)


def change_texts(name: str, *values: float) -> list[str]:
    """Return changes of a metric with their signs, all with as many digits as the least needs.

    A change that is shown as 0 has no sign.
    """
    factor, digits, _ = _shown(name)
    scaled = [factor * value for value in values]
    most = digits + MORE_DIGITS
    # a difference that may be none needs no more digits to say so
    if min(scaled) > 0 or max(scaled) < 0:
        while digits < most and not all(_is_seen(value, digits) for value in scaled):
            digits += 1
    return [_signed(value, digits) for value in scaled]


def interval_text(name: str, change: float, low: float, high: float) -> str:
    """Return a change and its interval: ``-1.0 (-3.0 to +1.0)``."""
    texts = change_texts(name, change, low, high)
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def unit_of(name: str) -> str:
    """Return what changes of a metric are counted in; empty where it is nothing but a number."""
    return _shown(name)[2]


def axis_value(name: str, value: float) -> float:
    """Return the number that an axis shows for a value: shares are of 100."""
    return _shown(name)[0] * value


def title_of(name: str) -> str:
    """Return a metric's name in tables: ``accuracy, %``."""
    metric = METRICS.get(name)
    if metric is None:
        return name
    if metric.unit == "share":
        return f"{metric.title}, %"
    if metric.unit in {"nats", "words", "tokens"} and metric.unit not in metric.title:
        return f"{metric.title}, {metric.unit}"
    return metric.title


def axis_title(name: str) -> str:
    """Return a metric's name at an axis, with the better direction: ``F1, %, higher is better``."""
    return ", ".join(filter(None, [title_of(name), direction_of(name)]))


def score_words(name: str, score: str) -> str:
    """Return a metric and its value as part of a sentence: ``accuracy 90.5 ± 2.1 %``."""
    metric = METRICS.get(name)
    if metric is None:
        return f"{name} {score}"
    if metric.unit == "share":
        return f"{metric.title} {score} %"
    return f"{metric.title} {score}"


def direction_of(name: str) -> str:
    """Return which values are better, in words; empty where neither are."""
    higher = _higher_is_better(METRICS.get(name))
    if higher is None:
        return ""
    if higher:
        return HIGHER
    return LOWER


def is_better(name: str, value: float, other: float) -> bool:
    """Say whether a value of a metric is better than another one."""
    higher = _higher_is_better(METRICS.get(name))
    if higher is None:
        return False
    if higher:
        return value > other
    return value < other


def _higher_is_better(metric: Metric | None) -> bool | None:
    if metric is None:
        return None
    return metric.higher_is_better


def _shown(name: str) -> tuple[float, int, str]:
    metric = METRICS.get(name)
    if metric is None:
        return 1.0, 4, ""
    return _SHOWN[metric.unit]


def _signed(value: float, digits: int) -> str:
    text = _written(value, digits)
    if not _is_seen(value, digits):
        return text.removeprefix("-")
    if value > 0:
        return f"+{text}"
    return text


def _is_seen(value: float, digits: int) -> bool:
    """Return whether anything but zeros is left of a value with so many digits."""
    return any(digit in f"{value:.{digits}f}" for digit in "123456789")


def _written(value: float, digits: int) -> str:
    """Return a number with so many digits behind the point; a very large one by its size."""
    if abs(value) >= LARGE:
        return f"{value:.3g}"
    return f"{value:,.{digits}f}"
