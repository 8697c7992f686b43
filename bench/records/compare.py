"""Result files beside each other: the same measurements, how much they differ, and whether that is more than their noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from edgellm.bench.records.differences import Row, flat_environment, short_model

CONFIDENCE = 0.95
KEYS = (
    *("kind", "model", "backend", "test", "bits", "dtype", "threads", "batch", "memory_bytes"),
    *("chunk_bytes", "question", "variant", "reference_model", "reference_backend"),
)
"""What two records share that measure the same."""

LOOSE = ("threads", "dtype", "bits")
"""Keys that do not matter where each file has but one value of them: another machine has other cores."""


@dataclass(frozen=True, slots=True)
class Change:
    """How many times as fast the second samples are as the first.

    Attributes:
        ratio: the median of all pairs' ratios; above 1 the second is faster.
        low, high: its interval; None where one side has a single sample.
        confidence: of that interval: with few samples none of 95% exists, and the widest there is
            has less.
    """

    ratio: float
    low: float | None = None
    high: float | None = None
    confidence: float | None = None

    @property
    def within_noise(self) -> bool | None:
        """Whether no difference at all lies inside the interval; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= 1.0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = {
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
        }
        return found | {"within_noise": self.within_noise}


@dataclass(frozen=True, slots=True)
class Compared:
    """One measurement in every file: its key, the record of each file (or none), and the change of each from the first."""

    key: Mapping[str, Any]
    records: tuple[Row | None, ...]
    changes: tuple[Change | None, ...]


def compare(files: Sequence[Sequence[Row]]) -> list[Compared]:
    """Match the records of all files by what they measure; of a key that a file has twice the last one counts."""
    keys = _keys(files)
    found: dict[tuple[Any, ...], list[Row | None]] = {}
    for number, rows in enumerate(files):
        for row in rows:
            key = tuple(_value(row, name) for name in keys)
            found.setdefault(key, [None] * len(files))[number] = row
    return [
        Compared(
            dict(zip(keys, key, strict=True)),
            tuple(records),
            tuple(_change(records[0], record) for record in records[1:]),
        )
        for key, records in found.items()
    ]


def change(before: Sequence[float], after: Sequence[float]) -> Change:
    """How many times as fast ``after`` is, from seconds of equal work.

    The estimate is the median of the ratios of all pairs, and the interval is made of the ratios
    between which it lies with 95% confidence whatever the distribution (Hodges and Lehmann 1963;
    the rank-sum test turned round).
    """
    ratios = sorted(first / second for first, second in product(before, after))
    middle = statistics.median(ratios)
    if len(before) < 2 or len(after) < 2:
        return Change(middle)
    cut, confidence = _cut(len(before), len(after))
    return Change(middle, ratios[cut], ratios[len(ratios) - 1 - cut], confidence)


def environments(files: Sequence[Sequence[Row]]) -> dict[str, tuple[str, ...]]:
    """What is not the same everywhere: each fact with its values in every file."""
    found: list[dict[str, dict[str, None]]] = []
    for rows in files:
        facts: dict[str, dict[str, None]] = {}
        for row in rows:
            for name, value in flat_environment(row).items():
                facts.setdefault(name, {})[value] = None
        found.append(facts)
    names = dict.fromkeys(name for facts in found for name in facts)
    values = {
        name: tuple(", ".join(facts.get(name, {})) or "-" for facts in found) for name in names
    }
    return {name: shown for name, shown in values.items() if len(set(shown)) > 1}


def as_document(compared: Sequence[Compared], names: Sequence[str]) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "schema": 1,
        "files": list(names),
        "comparisons": [
            {
                **item.key,
                "tokens_per_second": [
                    row.get("tokens_per_second") if row else None for row in item.records
                ],
                "median_seconds": [
                    statistics.median(row["seconds"]) if row and row["seconds"] else None
                    for row in item.records
                ],
                "changes": [found.as_dict() if found else None for found in item.changes],
            }
            for item in compared
        ],
    }


def _keys(files: Sequence[Sequence[Row]]) -> list[str]:
    """The keys that tell measurements apart here."""
    kept = []
    for name in KEYS:
        own = [{str(_value(row, name)) for row in rows if rows} for rows in files]
        if name in LOOSE and all(len(values) <= 1 for values in own):
            continue
        kept.append(name)
    return kept


def _value(row: Row, name: str) -> Any:
    value = row.get(name)
    return short_model(str(value)) if name == "model" else value


def _change(before: Row | None, after: Row | None) -> Change | None:
    if before is None or after is None:
        return None
    first, second = _units(before), _units(after)
    return change(first, second) if first and second else None


def _median(row: Row | None) -> float | None:
    return statistics.median(row["seconds"]) if row and row["seconds"] else None


def _units(row: Row) -> list[float]:
    """Seconds a token, or a byte read, of each repetition."""
    work = (row.get("tokens") or 0) * (row.get("batch") or 1) or row.get("read_bytes") or 1
    return [seconds / work for seconds in row["seconds"] if seconds > 0 and math.isfinite(seconds)]


def _cut(first: int, second: int) -> tuple[int, float]:
    """How many of the sorted ratios lie outside the interval at either end, and the interval's confidence."""
    counts = _rank_sums(first, second)
    total, below, cut = sum(counts), 0, -1
    for number, ways in enumerate(counts):
        if (below + ways) / total > (1 - CONFIDENCE) / 2:
            break
        below, cut = below + ways, number
    if cut < 0:
        return 0, 1 - 2 * counts[0] / total
    return cut, 1 - 2 * below / total


def _rank_sums(first: int, second: int) -> list[int]:
    """In how many ways each value of the rank-sum statistic comes about, were both sides alike (Mann and Whitney 1947)."""
    counts = [1] + [0] * (first * second)
    # the Gaussian binomial coefficient, a factor of it at a time
    for number in range(1, first + 1):
        for place in range(len(counts) - 1, second + number - 1, -1):
            counts[place] -= counts[place - second - number]
        for place in range(number, len(counts)):
            counts[place] += counts[place - number]
    return counts
