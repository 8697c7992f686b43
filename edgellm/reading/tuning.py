"""How fast a disk gives a model's files, and how it is best asked: measured once, and remembered for each disk."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from edgellm.checkpoint.buffer import Extent
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import cache_folder
from edgellm.files.strict_json import read_json, write_json
from edgellm.reading.disk_reader import DiskReader, Tuning
from edgellm.reading.read_plan import SECTOR
from edgellm.settings import is_int

CANDIDATES = (
    Tuning(),
    Tuning(threads=2),
    Tuning(threads=8),
    Tuning(threads=4, chunk=2 << 20),
    Tuning(threads=4, chunk=32 << 20),
)
"""The first one is what is used without a measurement."""

GAIN = 1.05
"""How much faster than the first candidate another one must be, or the difference is the disk's own wandering."""

SPAN = 32 << 20
"""Bytes that a measurement reads at a time."""

SECONDS = 1.0
"""What a tuning may take."""

WORTH_TUNING = 512 << 20
"""Bytes; smaller models are read in the time that a tuning takes."""


def tuned(files: Sequence[Path]) -> Tuning:
    """How the disk with these files is best read: as remembered, or else found out now in about a second.

    Raises:
        ReadError: a file cannot be read.
    """
    if not files or _total(files) < WORTH_TUNING:
        return CANDIDATES[0]
    disk = f"{files[0].stat().st_dev:x}"
    remembered = _remembered()
    if disk in remembered:
        return remembered[disk]
    found = find_tuning(files)
    _remember(remembered | {disk: found})
    return found


def find_tuning(files: Sequence[Path], *, seconds: float = SECONDS) -> Tuning:
    """The fastest of a few ways to read these files. Each is tried several times, in turns, because disks wander."""
    rates: dict[Tuning, list[float]] = {candidate: [] for candidate in CANDIDATES}
    spans = _spans(files)
    begun = time.perf_counter()
    while True:
        for candidate in CANDIDATES:
            rates[candidate].append(_rate(candidate, spans, seconds=0.0))
        if time.perf_counter() - begun > seconds:
            break
    usual, *others = CANDIDATES
    best = max(others, key=lambda candidate: statistics.median(rates[candidate]))
    faster = statistics.median(rates[best]) > GAIN * statistics.median(rates[usual])
    return best if faster else usual


def measure_disk(
    files: Sequence[Path], *, tuning: Tuning | None = None, seconds: float = 1.0
) -> float:
    """Bytes a second of plain sequential reads of these files, past the page cache where that is possible.

    Raises:
        ReadError: a file cannot be read.
    """
    return _rate(tuning or tuned(files), _spans(files), seconds=seconds)


def _rate(tuning: Tuning, spans: Iterator[Extent], *, seconds: float) -> float:
    """Bytes a second over at least two spans and ``seconds``."""
    whole = np.empty(2 * SPAN + SECTOR, np.uint8)
    start = -whole.ctypes.data % SECTOR
    halves = [
        memoryview(whole)[start + half * SPAN : start + (half + 1) * SPAN] for half in range(2)
    ]
    reader = DiskReader(tuning)
    try:
        begun = time.perf_counter()
        under_way = [reader.submit([next(spans)], half) for half in halves]
        while time.perf_counter() - begun < seconds:
            under_way[0].wait()
            halves.reverse()
            under_way = [under_way[1], reader.submit([next(spans)], halves[1])]
        for ticket in under_way:
            ticket.wait()
        return reader.bytes_read / (time.perf_counter() - begun)
    finally:
        reader.close()


def _spans(files: Sequence[Path]) -> Iterator[Extent]:
    """Pieces of the files one after the other, round and round."""
    while True:
        for file in files:
            size = file.stat().st_size
            for offset in range(0, size, SPAN):
                yield Extent(file, offset, min(SPAN, size - offset), 0)


def _total(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _memory() -> Path:
    return cache_folder() / "disks.json"


def _remembered() -> dict[str, Tuning]:
    """Tunings by disk; nothing where the file is absent or damaged."""
    found: dict[str, Tuning] = {}
    with suppress(EdgeLLMError):
        for disk, entry in read_json(_memory()).items():
            threads, chunk = (
                (entry.get("threads"), entry.get("chunk"))
                if isinstance(entry, dict)
                else (None, None)
            )
            if (
                is_int(threads)
                and is_int(chunk)
                and 0 < threads <= 64
                and 0 < chunk <= 1 << 28
                and chunk % SECTOR == 0
            ):
                found[disk] = Tuning(threads, chunk)
    return found


def _remember(tunings: dict[str, Tuning]) -> None:
    """Write them down; where that is not allowed they are found out anew each time."""
    with suppress(EdgeLLMError, OSError):
        _memory().parent.mkdir(parents=True, exist_ok=True)
        write_json(
            _memory(),
            {
                disk: {"threads": item.threads, "chunk": item.chunk}
                for disk, item in tunings.items()
            },
        )
