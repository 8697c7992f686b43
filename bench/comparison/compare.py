"""Compare result files: match what measures the same, and tell a change from noise."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from edgellm.bench.records.differences import flat_environment, short_model
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.record import Record
from edgellm.bench.records.training import TrainingRecord

CONFIDENCE = 0.95
"""Of the interval round a change, where there are samples enough."""

MAX_SAMPLES = 100
"""Repetitions of a side of a comparison: what counts their ranks takes their number cubed."""

KEYS = (
    *("kind", "model", "backend", "test", "bits", "dtype", "threads", "batch", "memory_bytes"),
    *("tensor_parallel", "cluster"),
    *("chunk_bytes", "question", "variant", "reference_model", "reference_backend"),
)
"""Fields that are equal in two records of the same measurement."""

EVALUATION_KEYS = (
    *("task", "shots", "shot_seed", "decoding", "chat", "seed", "kv_bits", "prompt_hash"),
)
"""The same of evaluations; other kinds have none of them."""

TRAINING_KEYS = ("work", "rank", "steps")
"""The same of training."""

MACHINE_KEYS = ("threads", "dtype", "bits", "tensor_parallel", "cluster")
"""Keys that do not count where each file has but one value of them: machines differ in cores."""


@dataclass(frozen=True, slots=True)
class Change:
    """How many times as fast the second samples are as the first.

    Attributes:
        ratio: the median of all pairs' ratios; above 1 the second is faster.
        low: the lower end of its interval; None where one side has a single sample.
        high: the upper end.
        confidence: of that interval: with few samples none of 95% exists, and the widest there is
            has less.
    """

    ratio: float
    low: float | None = None
    high: float | None = None
    confidence: float | None = None

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval holds 1, no change at all; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low <= 1.0 <= self.high

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self) | {"within_noise": self.within_noise}


@dataclass(frozen=True, slots=True)
class MatchedRecords:
    """One measurement as each file has it.

    Attributes:
        key: the fields that name the measurement.
        records: of each file; None where a file has none.
        changes: of each file but the first, from the first.
    """

    key: Mapping[str, Any]
    records: tuple[Record | None, ...]
    changes: tuple[Change | None, ...]


def compare(files: Sequence[Sequence[Record]]) -> list[MatchedRecords]:
    """Match the records of all files by what they measure.

    Of a measurement that a file has twice the last one counts.
    """
    keys = _distinguishing_keys(files)
    matches: dict[tuple[Any, ...], list[Record | None]] = {}
    for number, records in enumerate(files):
        for record in records:
            key = tuple(_key_value(record, name) for name in keys)
            matches.setdefault(key, [None] * len(files))[number] = record
    return [
        MatchedRecords(
            dict(zip(keys, key, strict=True)),
            tuple(records),
            tuple(_record_change(records[0], record) for record in records[1:]),
        )
        for key, records in matches.items()
    ]


def change(before: Sequence[float], after: Sequence[float]) -> Change:
    """Return how many times as fast ``after`` is, from seconds of equal work.

    The estimate is the median of the ratios of all pairs, and the interval is made of the ratios
    between which it lies with 95% confidence whatever the distribution (Hodges and Lehmann 1963;
    the rank-sum test turned round).
    """
    ratios = sorted(first / second for first, second in product(before, after))
    estimate = statistics.median(ratios)
    if len(before) < 2 or len(after) < 2:
        return Change(estimate)
    outside, confidence = _interval(len(before), len(after))
    return Change(estimate, ratios[outside], ratios[-1 - outside], confidence)


def environments(files: Sequence[Sequence[Record]]) -> dict[str, tuple[str, ...]]:
    """Return the facts that are not the same everywhere, each with its values in every file."""
    files_facts = [_facts(records) for records in files]
    names = dict.fromkeys(name for facts in files_facts for name in facts)
    values = {name: tuple(facts.get(name, "-") for facts in files_facts) for name in names}
    return {name: texts for name, texts in values.items() if len(set(texts)) > 1}


def as_document(matches: Sequence[MatchedRecords], names: Sequence[str]) -> dict[str, Any]:
    """Return all comparisons as one JSON object; ``names`` are the files'."""
    return {
        "schema": 1,
        "files": list(names),
        "comparisons": [_as_comparison(match) for match in matches],
    }


def _as_comparison(match: MatchedRecords) -> dict[str, Any]:
    return {
        **match.key,
        "tokens_per_second": [record and record.tokens_per_second for record in match.records],
        "median_seconds": [record and record.median_seconds for record in match.records],
        "changes": [item and item.as_dict() for item in match.changes],
    }


def _facts(records: Sequence[Record]) -> dict[str, str]:
    """Return the environment of a file's records; a fact of several values lists them."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for name, value in flat_environment(record).items():
            values[name][value] = None
    return {name: ", ".join(found) or "-" for name, found in values.items()}


def _distinguishing_keys(files: Sequence[Sequence[Record]]) -> list[str]:
    """Return the keys that tell measurements apart in these files."""
    keys = [name for name in KEYS if name not in MACHINE_KEYS or _varies_in_a_file(files, name)]
    if any(isinstance(record, EvaluationRecord) for records in files for record in records):
        keys += EVALUATION_KEYS
    if any(isinstance(record, TrainingRecord) for records in files for record in records):
        keys += TRAINING_KEYS
    return keys


def _varies_in_a_file(files: Sequence[Sequence[Record]], name: str) -> bool:
    return any(len({str(record.get(name)) for record in records}) > 1 for records in files)


def _key_value(record: Record, name: str) -> Any:
    if name == "model":
        return short_model(record.model)
    return record.get(name)


def _record_change(before: Record | None, after: Record | None) -> Change | None:
    if before is None or after is None:
        return None
    first = _seconds_per_unit(before)
    second = _seconds_per_unit(after)
    if not first or not second:
        return None
    return change(first, second)


def _seconds_per_unit(record: Record) -> list[float]:
    """Return seconds per token, or a byte read, or a question, of each repetition."""
    work = record.tokens * record.batch or record.get("read_bytes") or 1
    if isinstance(record, EvaluationRecord):
        work = record.questions or 1
    return [seconds / work for seconds in _evenly(record.seconds) if seconds]


def _evenly(samples: Sequence[float]) -> Sequence[float]:
    """Return the samples, or so many of them, evenly spaced in time, that all pairs are few."""
    step = math.ceil(len(samples) / MAX_SAMPLES)
    return samples[:: max(1, step)]


def _interval(first: int, second: int) -> tuple[int, float]:
    """Return how many sorted ratios lie outside at either end, and the interval's confidence."""
    counts = _rank_sums(first, second)
    total = sum(counts)
    outside = -1
    below = 0  # ways in which the statistic is at most ``outside``
    for statistic, ways in enumerate(counts):
        if (below + ways) / total > (1 - CONFIDENCE) / 2:
            break
        below += ways
        outside = statistic
    if outside < 0:
        # too few samples: all ratios, from the least to the largest
        return 0, 1 - 2 * counts[0] / total
    return outside, 1 - 2 * below / total


def _rank_sums(first: int, second: int) -> list[int]:
    """Return in how many ways each value of the rank-sum statistic comes about by chance.

    The statistic of equal sides of ``first`` and ``second`` samples (Mann and Whitney 1947).
    """
    counts = [1] + [0] * (first * second)
    # Gaussian binomial coefficient: the product over i of (1 - q^(second + i)) / (1 - q^i)
    for number in range(1, first + 1):
        for place in range(len(counts) - 1, second + number - 1, -1):
            counts[place] -= counts[place - second - number]
        for place in range(number, len(counts)):
            counts[place] += counts[place - number]
    return counts
