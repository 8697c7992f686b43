"""Records: a measurement's settings, machine and samples, and the figures derived from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

from edgellm.bench.records.doubts import Doubt, doubt_share, doubt_spread, spread_of
from edgellm.bench.records.fields import (
    Bits,
    Count,
    Environment,
    Joules,
    Machine,
    MachineLink,
    Operations,
    Rate,
    Seconds,
    Several,
    checked,
)

SCHEMA = 1
"""Version of the JSON documents that hold records; raised when a field changes its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement. Sizes are in bytes, times in seconds.

    Attributes:
        model: name or path.
        backend: the runtime that computed.
        device: the chip that it computed on.
        test: ``pp512``, ``tg128``, ``paging``, ``disk``.
        environment: the machine and the versions.
        tokens: tokens of one repetition, in each sequence.
        seconds: seconds of each repetition.
        threads: threads for arithmetic, or for reading where the disk alone is measured.
        batch: sequences at once.
        bits: bits per weight, as the model's config says.
        memory_bytes: the budget.
        peak_memory_bytes: the most that the process held.
        weight_bytes_per_token: weights that one token's arithmetic goes through.
        floor_seconds: the least that a repetition could take on this machine.
        machines: all that computed together, the first one first; none where one computed alone.
        links: those between them that were measured.
        split: what each of them has: ``windows`` of layers, or ``rows``.
        error: why there is no result.
        unknown: what another version of edgellm has written beside these fields; kept as it is.

    Raises:
        FieldError: a field holds what it cannot, such as a time that is not a number.
    """

    model: str
    backend: str
    device: str
    test: str
    environment: Environment
    tokens: Count = 0
    seconds: tuple[Seconds, ...] = ()
    threads: Several | None = None
    batch: Several = 1
    bits: Bits | None = None
    memory_bytes: Count | None = None
    peak_memory_bytes: Count | None = None
    weight_bytes_per_token: Count | None = None
    floor_seconds: Seconds | None = None
    machines: tuple[Machine, ...] = ()
    links: tuple[MachineLink, ...] = ()
    split: str | None = None
    error: str | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    KIND: ClassVar[str] = "record"
    """The class of a record in a file; written as ``kind``."""

    DERIVED: ClassVar[tuple[str, ...]] = ("tokens_per_second", "achieved_gbps", "roofline_share")
    """Properties that are written with the fields."""

    def __post_init__(self) -> None:
        """Check every field against the type that it is declared with."""
        for name, declared in field_types(type(self)).items():
            object.__setattr__(self, name, checked(getattr(self, name), declared, name))

    @property
    def kind(self) -> str:
        """The class of the record, as files name it."""
        return self.KIND

    def get(self, name: str) -> Any:
        """Return a field or a derived figure; None where this kind of record has none so named."""
        return getattr(self, name, None)

    @property
    def cluster(self) -> str | None:
        """The machines in words, where there are several: ``2 machines by windows``."""
        if not self.machines:
            return None
        return f"{len(self.machines)} machines by {self.split}"

    @property
    def median_seconds(self) -> float | None:
        """Seconds of the median repetition; None where there is none."""
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all sequences a second, in the median repetition."""
        return quotient(self.batch * self.tokens, self.median_seconds)

    @property
    def seconds_per_token(self) -> float | None:
        """Seconds for each token of a sequence, in the median repetition."""
        return quotient(self.median_seconds, self.tokens)

    @property
    def achieved_gbps(self) -> float | None:
        """Weights that went through the arithmetic, in GB per second."""
        rate = self.tokens_per_second
        if not rate or not self.weight_bytes_per_token:
            return None
        return rate / self.batch * self.weight_bytes_per_token / 1e9

    @property
    def roofline_share(self) -> float | None:
        """Fraction of the machine's limit that was reached: 1 is the limit."""
        return quotient(self.floor_seconds, self.median_seconds)

    @property
    def spread(self) -> float | None:
        """Half the distance of slowest and fastest repetition, as a fraction of the median."""
        return spread_of(self.seconds, self.median_seconds)

    @property
    def doubts(self) -> list[Doubt]:
        """The reasons to doubt its figures."""
        return []

    @property
    def warnings(self) -> list[str]:
        """The reasons to doubt its figures, as sentences."""
        return [str(doubt) for doubt in self.doubts]

    def as_dict(self) -> dict[str, Any]:
        """Return fields and derived figures as one JSON object."""
        names = [one.name for one in fields(self)]
        values = {name: getattr(self, name) for name in (*names, *self.DERIVED)}
        environment, unknown = values.pop("environment"), values.pop("unknown")
        return {"kind": self.KIND, **values, **unknown, "environment": environment}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRecord(Record):
    """A prompt (``pp512``) or a generation (``tg128``) after ``depth`` tokens.

    Attributes:
        depth: tokens of a sequence that came before, untimed.
        dtype: the type of activations, as it was asked for; None is the backend's own choice.
        tensor_parallel: ranks that computed each matrix together, each some of its rows or columns.
        arithmetic: the code path that ran.
        model_bytes: bytes of the weights' files.
        load_seconds: from the start of loading until the model could compute.
        step_seconds: of single steps, each waited for, in a pass of their own; their percentiles
            are the latencies.
        first_token_seconds: of each repetition, where it was measured apart (an endpoint); else a
            prompt's own seconds.
        read_gbps: this machine's memory bandwidth, measured in the same run, in GB/s.
        compute_gflops: this machine's matrix products at their fastest, in 10^9 operations/s.
        flops: operations in matrix products of one repetition.
        energy_joules: of each repetition, where the machine tells it.
        energy_source: the counter that told it.
        slept: repetitions thrown away since the machine slept through a part of them.
        not_measured: what the same run left out, a sentence with the reason for each.
    """

    KIND: ClassVar[str] = "speed"

    depth: Count = 0
    dtype: str | None = None
    tensor_parallel: Several = 1
    arithmetic: str | None = None
    model_bytes: Count | None = None
    load_seconds: Seconds | None = None
    step_seconds: tuple[Seconds, ...] = ()
    first_token_seconds: tuple[Seconds, ...] = ()
    read_gbps: Rate | None = None
    compute_gflops: Rate | None = None
    flops: Operations | None = None
    energy_joules: tuple[Joules, ...] = ()
    energy_source: str | None = None
    slept: Count = 0
    not_measured: tuple[str, ...] = ()

    DERIVED: ClassVar[tuple[str, ...]] = (
        *Record.DERIVED,
        "time_to_first_token",
        "step_p50",
        "step_p90",
        "step_p99",
        "joules_per_token",
        "spread",
        "warnings",
    )

    @property
    def is_prompt(self) -> bool:
        """Whether a prompt was measured, and not a generation."""
        return self.test.startswith("pp")

    @property
    def achieved_gbps(self) -> float | None:
        """Weights read, in GB per second: all of them once a step, or once a prompt."""
        seconds = self.median_seconds
        if not seconds or not self.weight_bytes_per_token:
            return None
        passes = self.tokens
        if self.is_prompt:
            passes = 1
        return passes * self.weight_bytes_per_token / seconds / 1e9

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds until the first token is known; of a local prompt, until its last logits are."""
        if self.first_token_seconds:
            return median(self.first_token_seconds)
        if self.is_prompt:
            return self.median_seconds
        return None

    @property
    def step_p50(self) -> float | None:
        """Seconds that half of the steps stay below."""
        return percentile(self.step_seconds, 50)

    @property
    def step_p90(self) -> float | None:
        """Seconds that nine of ten steps stay below."""
        return percentile(self.step_seconds, 90)

    @property
    def step_p99(self) -> float | None:
        """Seconds that 99 of 100 steps stay below."""
        return percentile(self.step_seconds, 99)

    @property
    def joules_per_token(self) -> float | None:
        """Energy of the median repetition by its tokens, those of all sequences."""
        joules = median(self.energy_joules)
        tokens = self.tokens * self.batch
        if joules is None or not tokens:
            return None
        return joules / tokens

    @property
    def doubts(self) -> list[Doubt]:
        """The reasons to doubt its figures."""
        share = doubt_share(self.roofline_share, self.weight_bytes_per_token)
        return [*doubt_spread(self.spread), *share]


_FIELD_TYPES: dict[type, Mapping[str, Any]] = {}


def field_types(kind: type[Record]) -> Mapping[str, Any]:
    """Return the declared type of each field of a kind of records, with its limits."""
    if kind not in _FIELD_TYPES:
        hints = get_type_hints(kind, include_extras=True)
        _FIELD_TYPES[kind] = {one.name: hints[one.name] for one in fields(kind)}
    return _FIELD_TYPES[kind]


def median(samples: Sequence[float]) -> float | None:
    """Return the median; None of no samples."""
    if not samples:
        return None
    return statistics.median(samples)


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """Return the sample that ``percent`` of them do not exceed (nearest rank); None of none."""
    if not samples:
        return None
    rank = max(1, math.ceil(percent / 100 * len(samples)))
    return sorted(samples)[rank - 1]


def quotient(numerator: float | None, denominator: float | None) -> float | None:
    """Divide two measured figures; None where one of them is missing or 0."""
    if not numerator or not denominator:
        return None
    return numerator / denominator
