"""Sizes, times and counts as people write them."""

import pytest

from edgellm.console.units import count, plural, seconds, size, speed, speed_range


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 KB"),
        (999_949, "1000 KB"),
        (999_950, "1.00 MB"),
        (4_050_000_000, "4.05 GB"),
        (38.7e9, "38.7 GB"),
        (114e6, "114 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0 ms"),
        (0.42, "420 ms"),
        (1, "1.0 s"),
        (99.9, "99.9 s"),
        (125, "2 min 05 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_times(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(42.04, "42.0 tokens/s"), (1234, "1234 tokens/s"), (0.5, "0.50 tokens/s (2.0 s each)")],
)
def test_speeds(value, text):
    assert speed(value) == text


def test_counts():
    assert count(6_950_000) == "6.95 million"
    assert count(70_600_000_000) == "70.6 billion"
    assert (plural(1, "layer"), plural(2000, "token")) == (
        "1 layer",
        "2,000 tokens",
    )


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(17.1, 54, "17.1 to 54.0 tokens/s"), (50, 52, "51.0 tokens/s")],
)
def test_ranges_of_speeds(low, high, text):
    assert speed_range(low, high) == text
