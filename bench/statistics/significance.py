"""Exact tests, and their correction where several are made."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided exact p of McNemar's test: a fair coin, thrown once a difference.

    It takes questions for independent of each other.

    Args:
        better: questions that only the second run has right.
        worse: those that only the first has right.
    """
    thrown = better + worse
    if better == worse:
        return 1.0
    fewer = min(better, worse)
    # the terms overflow as numbers, not as logarithms; they grow, so sum them from the small ones
    logarithms = [
        math.lgamma(thrown + 1) - math.lgamma(k + 1) - math.lgamma(thrown - k + 1)
        for k in range(fewer + 1)
    ]
    half = math.log(2)
    tail = math.fsum(math.exp(value - thrown * half) for value in logarithms)
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method, in the same order.

    With them, the chance of a false alarm among all comparisons is at most the level of one.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected
