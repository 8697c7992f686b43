"""Values of metrics as people read them: points, nats, and a sign where they are a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgellm.bench.metrics.metric import Metric
from edgellm.bench.metrics.table import METRICS

HIGHER, LOWER = "higher is better", "lower is better"


def _digits(count: int) -> Callable[[float], str]:
    return lambda value: f"{value:,.{count}f}"


def _significant(value: float) -> str:
    return f"{value:,.4g}"


_SHOWN: Mapping[str, tuple[float, Callable[[float], str], str]] = {
    "share": (100.0, _digits(1), "points"),
    "score": (1.0, _digits(1), "points"),
    "nats": (1.0, _digits(3), "nats"),
    "bits/byte": (1.0, _digits(4), "bits/byte"),
    "perplexity": (1.0, _digits(3), ""),
    "words": (1.0, _digits(1), "words"),
    "tokens": (1.0, _digits(1), "tokens"),
    "1-10": (1.0, _digits(2), "points"),
}
"""By a metric's unit: what values are multiplied by, how they are written, their unit's name."""


def value_text(name: str, value: float) -> str:
    """Return a metric's value without its unit; shares are of 100."""
    factor, show, _ = _shown(name)
    return _short(show, factor * value)


def change_text(name: str, value: float) -> str:
    """Return a change of a metric with its sign; 0 has none."""
    factor, show, _ = _shown(name)
    text = _short(show, factor * value)
    if not any(digit in text for digit in "123456789"):
        return text.removeprefix("-")
    if value > 0:
        return f"+{text}"
    return text


def interval_text(name: str, change: float, low: float, high: float) -> str:
    """Return a change and its interval: ``-1.0 (-3.0 to +1.0)``."""
    texts = [change_text(name, value) for value in (change, low, high)]
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


def _shown(name: str) -> tuple[float, Callable[[float], str], str]:
    metric = METRICS.get(name)
    if metric is None:
        return 1.0, _significant, ""
    return _SHOWN[metric.unit]


def _short(show: Callable[[float], str], value: float) -> str:
    """Return a number as it is usually shown; one of very many digits by its size."""
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    return show(value)
