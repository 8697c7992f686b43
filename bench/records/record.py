"""What a measurement is: its configuration, where it was taken, every sample; and the figures that follow from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

SCHEMA = 1
"""Of the JSON documents that hold records; raised when a field changes its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement. Sizes are in bytes, times in seconds.

    Attributes:
        model: name or path.
        backend: what computed.
        device: on what.
        test: what was done: ``pp512``, ``tg128``, ``paging``, ``disk``.
        environment: the machine and the versions.
        tokens: of one repetition.
        seconds: of each repetition.
        threads: of arithmetic, or of reading where the disk alone is measured.
        batch: sequences at once.
        bits: of a weight, as the model's config says.
        memory_bytes: the budget.
        peak_memory_bytes: the most that the process held.
        weight_bytes_per_token: weights that one token's arithmetic goes through.
        floor_seconds: the least that a repetition could take on this machine.
        error: why there is no result.
    """

    model: str
    backend: str
    device: str
    test: str
    environment: Mapping[str, Any]
    tokens: int = 0
    seconds: tuple[float, ...] = ()
    threads: int | None = None
    batch: int = 1
    bits: int | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    weight_bytes_per_token: int | None = None
    floor_seconds: float | None = None
    error: str | None = None

    KIND: ClassVar[str] = "record"
    """Which class a record in a file is of; written as ``kind``."""

    DERIVED: ClassVar[tuple[str, ...]] = ("tokens_per_second", "achieved_gbps", "roofline_share")
    """Properties that are written with the fields."""

    @property
    def median_seconds(self) -> float | None:
        """Of a repetition; None where there is none."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all sequences a second, of the median repetition."""
        seconds = self.median_seconds
        return self.batch * self.tokens / seconds if seconds and self.tokens else None

    @property
    def achieved_gbps(self) -> float | None:
        """Weights that went through the arithmetic, in GB a second."""
        rate = self.tokens_per_second
        return (
            rate / self.batch * self.weight_bytes_per_token / 1e9
            if rate and self.weight_bytes_per_token
            else None
        )

    @property
    def roofline_share(self) -> float | None:
        """How near to the machine's limit: 1 is the limit."""
        seconds = self.median_seconds
        return self.floor_seconds / seconds if seconds and self.floor_seconds else None

    def as_dict(self) -> dict[str, Any]:
        """Fields and derived figures as one JSON object."""
        names = [field.name for field in fields(self)]
        found = {name: getattr(self, name) for name in (*names, *self.DERIVED)}
        environment = found.pop("environment")
        return {"kind": self.KIND} | found | {"environment": dict(environment)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRecord(Record):
    """A prompt (``pp512``) or a generation (``tg128``) through one backend, after ``depth`` tokens.

    Attributes:
        depth: tokens of a sequence that came before, untimed.
        dtype: of activations, as it was asked for; None is the backend's own choice.
        arithmetic: which path ran.
        model_bytes: of the weights' files.
        load_seconds: from the start of loading until the model could compute.
        step_seconds: of single steps, each waited for, in a pass of their own; their percentiles
            are the latencies.
        first_token_seconds: of each repetition, where it was measured apart (an endpoint); else a
            prompt's own seconds.
        read_gbps: what this machine reads from memory at the most, measured in the same run, in
            GB/s.
        compute_gflops: what it multiplies at the most, in 10^9 operations a second.
        flops: operations in matrix products of one repetition.
        energy_joules: of each repetition, where the machine tells it.
        energy_source: what told it.
        slept: repetitions thrown away since the machine slept through a part of them.
    """

    KIND: ClassVar[str] = "speed"

    depth: int = 0
    dtype: str | None = None
    arithmetic: str | None = None
    model_bytes: int | None = None
    load_seconds: float | None = None
    step_seconds: tuple[float, ...] = ()
    first_token_seconds: tuple[float, ...] = ()
    read_gbps: float | None = None
    compute_gflops: float | None = None
    flops: float | None = None
    energy_joules: tuple[float, ...] = ()
    energy_source: str | None = None
    slept: int = 0

    DERIVED: ClassVar[tuple[str, ...]] = (
        *Record.DERIVED,
        "time_to_first_token",
        "step_p50",
        "step_p90",
        "step_p99",
        "joules_per_token",
        "spread",
    )

    @property
    def is_prompt(self) -> bool:
        """Whether a prompt was measured, and not a generation."""
        return self.test.startswith("pp")

    @property
    def achieved_gbps(self) -> float | None:
        """Weights read, in GB a second: all of them once a step of a generation, or once a prompt."""
        seconds = self.median_seconds
        if not seconds or not self.weight_bytes_per_token:
            return None
        return (1 if self.is_prompt else self.tokens) * self.weight_bytes_per_token / seconds / 1e9

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds until the first token is known; of a prompt on this machine, until its last logits are."""
        if self.first_token_seconds:
            return statistics.median(self.first_token_seconds)
        return self.median_seconds if self.is_prompt else None

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
        tokens = self.tokens * self.batch
        return (
            statistics.median(self.energy_joules) / tokens
            if self.energy_joules and tokens
            else None
        )

    @property
    def spread(self) -> float | None:
        """How far repetitions lie apart: half the distance of slowest and fastest, as a share of the median."""
        seconds = self.median_seconds
        return (
            (max(self.seconds) - min(self.seconds)) / 2 / seconds
            if seconds and len(self.seconds) > 1
            else None
        )


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The sample that ``share`` percent of them do not exceed (nearest rank); None of none."""
    if not samples:
        return None
    return sorted(samples)[max(0, math.ceil(share / 100 * len(samples)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRecord(Record):
    """Plain reads of files.

    Attributes:
        chunk_bytes: of one read.
        read_bytes: of one repetition.
        direct_reads: whether they went past the page cache.
    """

    KIND: ClassVar[str] = "disk"

    chunk_bytes: int
    read_bytes: int
    direct_reads: bool

    DERIVED: ClassVar[tuple[str, ...]] = ("raw_read_gbps",)

    @property
    def raw_read_gbps(self) -> float | None:
        """GB read a second, of the median repetition."""
        seconds = self.median_seconds
        return self.read_bytes / seconds / 1e9 if seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PagingRecord(Record):
    """Tokens of a model inside a budget of memory.

    Attributes:
        layers: of the model.
        pinned_layers: those that stayed in memory.
        bytes_per_token: read from disk for a token.
        raw_gbps: GB a second of plain reads of the same files, before and after each repetition:
            one more than those.
        resident_seconds: of one token, were all weights in memory.
        load_seconds: until the first token could begin.
        direct_reads: whether reads went past the page cache.
        cap_bytes: what the system held the process to; None: nothing.
    """

    KIND: ClassVar[str] = "paging"

    layers: int | None = None
    pinned_layers: int | None = None
    bytes_per_token: int | None = None
    raw_gbps: tuple[float, ...] = ()
    resident_seconds: float | None = None
    load_seconds: float | None = None
    direct_reads: bool | None = None
    cap_bytes: int | None = None

    DERIVED: ClassVar[tuple[str, ...]] = (
        *Record.DERIVED,
        "raw_read_gbps",
        "seconds_per_token",
        "efficiency",
        "peak_rss_bytes",
    )

    @property
    def raw_read_gbps(self) -> float | None:
        """GB a second of plain reads, the median."""
        return statistics.median(self.raw_gbps) if self.raw_gbps else None

    @property
    def seconds_per_token(self) -> float | None:
        """Of the median repetition."""
        seconds = self.median_seconds
        return seconds / self.tokens if seconds else None

    @property
    def efficiency(self) -> float | None:
        """``max(missed bytes / raw disk rate, resident step time) / measured step time``: 1 is the physical limit.

        Each repetition is compared with the plain reads just before and just after it, since disks
        wander; the median.
        """
        if not self.seconds or self.resident_seconds is None or self.bytes_per_token is None:
            return None
        shares = []
        for number, seconds in enumerate(self.seconds):
            around = self.raw_gbps[number : number + 2]
            reading = self.bytes_per_token / (statistics.mean(around) * 1e9) if around else 0.0
            shares.append(max(reading, self.resident_seconds) * self.tokens / seconds)
        return statistics.median(shares)

    @property
    def roofline_share(self) -> float | None:
        """The same as efficiency."""
        return self.efficiency

    @property
    def peak_rss_bytes(self) -> int | None:
        """The most that the process held."""
        return self.peak_memory_bytes
