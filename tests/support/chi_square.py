"""Whether counts are those of draws with given chances: Pearson's chi-square test."""

import math

import numpy as np


def close_to_chance(counts, chances):
    """Whether counts are those of draws with these chances, by a test at 0.001."""
    counts, expected = np.asarray(counts, float), np.asarray(chances) * np.sum(counts)
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    return ((counts - expected) ** 2 / expected).sum() < _limit(len(counts) - 1)


def _limit(freedom):
    """What chi-square exceeds once in 1,000 times (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.0902 * math.sqrt(2 / (9 * freedom))) ** 3
