"""What a disk gives: plain sequential reads of files, with the reader that pages models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import DiskRecord
from edgellm.checkpoint.buffer import Extent, WeightBuffer
from edgellm.errors import ConfigError, ReadError
from edgellm.reading.disk_reader import DiskReader, Tuning

THREADS = (1, 2, 4, 8)
CHUNKS = (1 << 20, 8 << 20, 32 << 20)
REPEATS = 3
SPAN = 64 << 20
"""Bytes that are asked for at a time."""

READ = 512 << 20
"""Bytes of one repetition, at the most."""


def measure_disk_sweep(
    path: Path,
    *,
    threads: Sequence[int] = THREADS,
    chunks: Sequence[int] = CHUNKS,
    repeats: int = REPEATS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[DiskRecord]:
    """Read a file, or the files of a folder, in every combination of threads and piece sizes.

    The combinations take turns, and each turn reads other parts of the files, so that neither a
    disk that wanders nor a cache below the system's favours one of them.

    Raises:
        ConfigError: there is nothing to read.
        ReadError: a file cannot be read.
    """
    files = files_of(path)
    drop_from_cache(files)
    tunings = [Tuning(count, chunk) for count in threads for chunk in chunks]
    total = sum(file.stat().st_size for file in files)
    nbytes = min(READ, total)
    spans = _spans(files)
    slot = WeightBuffer(SPAN)
    seconds: dict[Tuning, list[float]] = {tuning: [] for tuning in tunings}
    direct = True
    for repeat in range(repeats):
        for tuning in tunings:
            progress(
                f"{repeat + 1}/{repeats}: {tuning.threads} threads, {tuning.read_size >> 20} MiB"
            )
            taken, past_cache = _read(tuning, _take(spans, nbytes), slot)
            seconds[tuning].append(taken)
            direct = direct and past_cache
    where = environment()
    return [
        DiskRecord(
            model=str(path),
            backend="disk",
            device=f"disk {files[0].stat().st_dev:x}",
            test="disk",
            environment=where,
            seconds=tuple(seconds[tuning]),
            threads=tuning.threads,
            chunk_bytes=tuning.read_size,
            read_bytes=nbytes,
            direct_reads=direct,
        )
        for tuning in tunings
    ]


def read_all(extents: Sequence[Extent], tuning: Tuning, slot: WeightBuffer) -> float:
    """GB a second of plain reads, all of them asked for at once; what is read is thrown away.

    Raises:
        ReadError: a file cannot be read.
    """
    seconds, _ = _read(
        tuning, [Extent(extent.file, extent.offset, extent.nbytes, 0) for extent in extents], slot
    )
    return sum(extent.nbytes for extent in extents) / seconds / 1e9


def files_of(path: Path) -> list[Path]:
    """The file, or the files of a folder, that are worth reading. Raises ConfigError."""
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.glob("*") if file.is_file())
        if path.is_dir()
        else []
    )
    files = [file for file in files if file.stat().st_size >= 1 << 20]
    if not files:
        raise ConfigError(
            f"{path} is no file of a megabyte and no folder with one",
            hint="name a model's folder; `edgellm synth` makes one",
        )
    return files


def drop_from_cache(files: Sequence[Path]) -> None:
    """Let the system forget what it holds of the files, where it can be told to. Raises ReadError."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except OSError as error:
            raise ReadError(f"{file} cannot be opened: {error.strerror}") from error
        try:
            os.fsync(descriptor)  # pages that are not yet on the disk are not dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _read(tuning: Tuning, extents: Sequence[Extent], slot: WeightBuffer) -> tuple[float, bool]:
    """Seconds, and whether all of it went past the page cache."""
    reader = DiskReader(tuning, files={extent.file for extent in extents})
    try:
        begun = time.perf_counter()
        tickets = [reader.submit([extent], slot.memory) for extent in extents]
        for ticket in tickets:
            ticket.wait()
        return time.perf_counter() - begun, reader.direct
    finally:
        reader.close()


def _spans(files: Sequence[Path]) -> Iterator[Extent]:
    while True:
        for file in files:
            size = file.stat().st_size
            for offset in range(0, size, SPAN):
                yield Extent(file, offset, min(SPAN, size - offset), 0)


def _take(spans: Iterator[Extent], nbytes: int) -> list[Extent]:
    """The next spans, of so many bytes together."""
    taken = []
    while nbytes > 0:
        span = next(spans)
        length = min(span.nbytes, nbytes)
        taken.append(Extent(span.file, span.offset, length, 0))
        nbytes -= length
    return taken
