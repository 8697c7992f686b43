"""Plain sequential reads of files, with the reader that pages models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from edgellm.bench.machine.environment import environment
from edgellm.bench.records.kinds import DiskRecord
from edgellm.checkpoint.buffer import Extent, WeightBuffer
from edgellm.errors import ConfigError, ReadError
from edgellm.files.given_path import given_path
from edgellm.reading.disk_reader import DiskReader, Tuning
from edgellm.reading.tuning import endless_extents

THREADS = (1, 2, 4, 8)
READ_SIZES = (1 << 20, 8 << 20, 32 << 20)
REPEATS = 3
REQUEST_BYTES = 64 << 20
"""Bytes that are asked for at a time."""

MAX_BYTES = 512 << 20
"""Bytes of one repetition."""


def measure_disk_sweep(
    path: Path,
    *,
    threads: Sequence[int] = THREADS,
    read_sizes: Sequence[int] = READ_SIZES,
    repeats: int = REPEATS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[DiskRecord]:
    """Read a file, or the files of a folder, in every combination of threads and read sizes.

    The combinations take turns, and each turn reads other parts of the files, so that neither a
    disk that wanders nor a cache below the system's favours one of them.

    Raises:
        ConfigError: there is nothing to read.
        ReadError: a file cannot be read.
    """
    files = files_of(path)
    drop_from_cache(files)
    tunings = [Tuning(count, size) for count in threads for size in read_sizes]
    total = sum(file.stat().st_size for file in files)
    nbytes = min(MAX_BYTES, total)
    extents = endless_extents(files, REQUEST_BYTES)
    buffer = WeightBuffer(REQUEST_BYTES)
    seconds: dict[Tuning, list[float]] = {tuning: [] for tuning in tunings}
    direct = True
    for repeat in range(repeats):
        for tuning in tunings:
            doing = f"{tuning.threads} threads, {tuning.read_size >> 20} MiB"
            progress(f"{repeat + 1}/{repeats}: {doing}")
            elapsed, was_direct = _read(tuning, _take(extents, nbytes), buffer)
            seconds[tuning].append(elapsed)
            direct = direct and was_direct
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


def read_all(extents: Sequence[Extent], tuning: Tuning, buffer: WeightBuffer) -> float:
    """Read extents, all asked for at once, and return GB per second; the data is dropped.

    Raises:
        ReadError: a file cannot be read.
    """
    # all to the buffer's beginning: it need hold no more than the largest
    to_beginning = [replace(extent, buffer_offset=0) for extent in extents]
    seconds, _ = _read(tuning, to_beginning, buffer)
    return sum(extent.nbytes for extent in extents) / seconds / 1e9


def files_of(path: Path) -> list[Path]:
    """Return the file, or those of a folder, that are worth reading. Raises ConfigError."""
    path = given_path(path)
    files = [path] if path.is_file() else sorted(path.glob("*"))
    files = [file for file in files if file.is_file() and file.stat().st_size >= 1 << 20]
    if not files:
        raise ConfigError(
            f"{path} is neither a file of at least a megabyte nor a folder with one",
            hint="name a model's folder; `edgellm synth` makes one",
        )
    return files


def drop_from_cache(files: Sequence[Path]) -> None:
    """Drop the files from the page cache, where the system can be told to. Raises ReadError."""
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


def _read(tuning: Tuning, extents: Sequence[Extent], buffer: WeightBuffer) -> tuple[float, bool]:
    """Read extents; return the seconds, and whether all reads went past the page cache."""
    with closing(DiskReader(tuning, files={extent.file for extent in extents})) as reader:
        begun = time.perf_counter()
        tickets = [reader.submit([extent], buffer.memory) for extent in extents]
        for ticket in tickets:
            ticket.wait()
        return time.perf_counter() - begun, reader.direct


def _take(extents: Iterator[Extent], nbytes: int) -> list[Extent]:
    """Return the next extents, this many bytes together."""
    taken = []
    while nbytes > 0:
        extent = next(extents)
        taken.append(replace(extent, nbytes=min(extent.nbytes, nbytes)))
        nbytes -= taken[-1].nbytes
    return taken
