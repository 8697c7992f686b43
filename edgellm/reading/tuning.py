"""How fast a disk gives a model's files, and how it is best asked.

That is measured once, and remembered for each disk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from edgellm.checkpoint.buffer import Extent
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import cache_folder, make_private_folder
from edgellm.files.strict_json import read_json, write_json
from edgellm.reading.disk_reader import DiskReader, Tuning
from edgellm.reading.open_files import file_size
from edgellm.reading.read_plan import SECTOR
from edgellm.settings import is_int

CANDIDATES = (
    Tuning(),
    Tuning(threads=2),
    Tuning(threads=8),
    Tuning(threads=4, read_size=2 << 20),
    Tuning(threads=4, read_size=32 << 20),
)
"""The first one is what is used without a measurement."""

GAIN = 1.05
"""How much faster than the first candidate another must be: less is the disk's own wandering."""

SPAN = 32 << 20
"""Bytes that a measurement reads at a time."""

SECONDS = 1.0
"""Time that finding a tuning may take."""

WORTH_TUNING = 512 << 20
"""Bytes; smaller models are read in the time that finding a tuning takes."""

MAX_THREADS = 64
MAX_READ_SIZE = 1 << 28
"""Maximum of a remembered tuning; anything above was not written by edgellm."""


def tuned(files: Sequence[Path]) -> Tuning:
    """Return how the disk with these files is best read: remembered, or found out in a second.

    Raises:
        ReadError: a file cannot be read.
    """
    if not files or sum(map(file_size, files)) < WORTH_TUNING:
        return CANDIDATES[0]
    disk = f"{files[0].stat().st_dev:x}"
    remembered = _remembered()
    if disk not in remembered:
        remembered[disk] = find_tuning(files)
        _remember(remembered)
    return remembered[disk]


def find_tuning(files: Sequence[Path], *, seconds: float = SECONDS) -> Tuning:
    """Return the fastest of a few ways to read these files.

    Each is tried several times, in turns, because disks wander.

    Raises:
        ReadError: a file cannot be read.
    """
    rates: dict[Tuning, list[float]] = {candidate: [] for candidate in CANDIDATES}
    extents = endless_extents(files)
    begun = time.perf_counter()
    while True:
        for candidate in CANDIDATES:
            rates[candidate].append(_rate(candidate, extents, seconds=0.0))
        if time.perf_counter() - begun > seconds:
            break
    usual, *others = CANDIDATES
    medians = {candidate: statistics.median(rates[candidate]) for candidate in CANDIDATES}
    best = max(others, key=medians.__getitem__)
    return best if medians[best] > GAIN * medians[usual] else usual


def measure_disk(
    files: Sequence[Path], *, tuning: Tuning | None = None, seconds: float = 1.0
) -> float:
    """Return bytes per second of sequential reads of files, past the page cache if possible.

    Raises:
        ReadError: a file cannot be read.
    """
    return _rate(tuning or tuned(files), endless_extents(files), seconds=seconds)


def _rate(tuning: Tuning, extents: Iterator[Extent], *, seconds: float) -> float:
    """Return bytes per second over at least two extents and ``seconds``."""
    memory = np.empty(2 * SPAN + SECTOR, np.uint8)
    start = -memory.ctypes.data % SECTOR
    # two halves take turns, so that the disk always has the next read waiting
    halves = [
        memoryview(memory)[start + half * SPAN : start + (half + 1) * SPAN] for half in range(2)
    ]
    with closing(DiskReader(tuning)) as reader:
        begun = time.perf_counter()
        under_way = [reader.submit([next(extents)], half) for half in halves]
        while time.perf_counter() - begun < seconds:
            under_way[0].wait()
            halves.reverse()
            under_way = [under_way[1], reader.submit([next(extents)], halves[1])]
        for ticket in under_way:
            ticket.wait()
        return reader.bytes_read / (time.perf_counter() - begun)


def endless_extents(files: Sequence[Path], span: int = SPAN) -> Iterator[Extent]:
    """Yield the files' bytes, ``span`` at a time, round and round."""
    while True:
        for file in files:
            size = file_size(file)
            for offset in range(0, size, span):
                yield Extent(file, offset, min(span, size - offset), 0)


def _memory() -> Path:
    return cache_folder() / "disks.json"


def _remembered() -> dict[str, Tuning]:
    """Return tunings by disk; none where the file is absent or damaged."""
    tunings: dict[str, Tuning] = {}
    with suppress(EdgeLLMError):
        for disk, entry in read_json(_memory()).items():
            tuning = _tuning(entry)
            if tuning is not None:
                tunings[disk] = tuning
    return tunings


def _tuning(entry: object) -> Tuning | None:
    """Return what an entry of the file says; None where it is none of ours."""
    if not isinstance(entry, dict):
        return None
    threads, read_size = entry.get("threads"), entry.get("chunk")
    if not is_int(threads) or not 0 < threads <= MAX_THREADS:
        return None
    if not is_int(read_size) or not 0 < read_size <= MAX_READ_SIZE or read_size % SECTOR:
        return None
    return Tuning(threads, read_size)


def _remember(tunings: dict[str, Tuning]) -> None:
    """Write tunings down; where that is not allowed, each run measures again."""
    entries = {
        disk: {"threads": tuning.threads, "chunk": tuning.read_size}
        for disk, tuning in tunings.items()
    }
    with suppress(EdgeLLMError, OSError):
        make_private_folder(_memory().parent)
        write_json(_memory(), entries, private=True)
