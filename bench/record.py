"""What a measurement is: its configuration, where it was taken, every sample; and the figures that follow from them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
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
        return rate / self.batch * self.weight_bytes_per_token / 1e9 if rate and self.weight_bytes_per_token else None

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
        return found | {"environment": dict(environment)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRecord(Record):
    """Plain reads of files.

    Attributes:
        chunk_bytes: of one read.
        read_bytes: of one repetition.
        direct_reads: whether they went past the page cache.
    """

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
        raw_gbps: GB a second of plain reads of the same files, before and after each repetition: one more than those.
        resident_seconds: of one token, were all weights in memory.
        load_seconds: until the first token could begin.
        direct_reads: whether reads went past the page cache.
        cap_bytes: what the system held the process to; None: nothing.
    """

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

        Each repetition is compared with the plain reads just before and just after it, since disks wander; the median.
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
