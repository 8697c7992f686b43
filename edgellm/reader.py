"""Bytes from disk into a buffer: direct, parallel, and ahead of whoever waits for them."""

from __future__ import annotations

import fcntl
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgellm.errors import ClosedError, ReadError
from edgellm.slot import Extent

SECTOR = 4096
"""Bytes; direct reads begin and end at multiples of it, in the file and in memory."""

GAP = 1 << 20
"""Bytes; foreign tensors closer than this are read in one piece, and what lies between is dropped."""

F_NOCACHE = 48
"""macOS: reads of this file leave no pages in the cache."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a disk is read: as many threads, each with pieces of ``chunk`` bytes."""

    threads: int = 4
    chunk: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """One read of a file. ``copies`` is empty where it goes straight into the slot at ``place``; else it goes through a bounce
    buffer, from where (offset in it, place in the slot, bytes) are copied."""

    file: Path
    offset: int
    nbytes: int
    needed: int
    place: int
    copies: tuple[tuple[int, int, int], ...] = ()


class Ticket:
    """A read that is under way."""

    def __init__(self, pieces: int) -> None:
        self._left = pieces
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._error: ReadError | None = None
        if pieces == 0:
            self._finished.set()

    def done(self) -> bool:
        """Whether all bytes have arrived, or the read has failed."""
        return self._finished.is_set()

    def settle(self) -> None:
        """Wait until nothing of it is under way any more."""
        self._finished.wait()

    def wait(self) -> None:
        """Wait for the last byte. Raises ReadError."""
        self.settle()
        if self._error is not None:
            raise self._error

    def failed(self) -> bool:
        """Whether a piece could not be read; the others are then not worth reading."""
        return self._error is not None

    def piece_done(self, error: ReadError | None = None) -> None:
        """Count one piece (the reader calls this)."""
        with self._lock:
            self._error = self._error or error
            self._left -= 1
            if self._left == 0:
                self._finished.set()


class Reader(Protocol):
    """Fills slots from files."""

    bytes_read: int
    busy_seconds: float

    def submit(self, extents: Sequence[Extent], memory: memoryview) -> Ticket:
        """Begin to read into a slot's memory, after what was submitted before; returns at once."""
        ...

    def close(self) -> None:
        """Stop, wait for the reads under way, and close the files."""
        ...


class DiskReader:
    """Reads with a few threads, past the page cache where the filesystem allows it."""

    def __init__(self, tuning: Tuning | None = None, *, direct: bool = True) -> None:
        self.tuning = tuning or Tuning()
        self.direct = direct
        self.bytes_read = 0
        self.busy_seconds = 0.0
        self._files: dict[tuple[Path, bool], int] = {}
        self._plans: dict[tuple[Extent, ...], list[Piece]] = {}
        self._lock = threading.Lock()
        self._under_way = 0
        self._begun = 0.0
        self._work: queue.SimpleQueue[tuple[Piece, memoryview, Ticket] | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"edgellm-reader-{n}", daemon=True) for n in range(self.tuning.threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, extents: Sequence[Extent], memory: memoryview) -> Ticket:
        """Begin to read into a slot's memory, after what was submitted before; returns at once."""
        if self._closed:
            raise ClosedError("the model was closed")
        key = tuple(extents)
        pieces = self._plans.get(key)
        if pieces is None:
            pieces = self._plans[key] = plan_pieces(key, self.tuning.chunk, direct=self.direct)
        ticket = Ticket(len(pieces))
        with self._lock:
            if self._under_way == 0:
                self._begun = time.perf_counter()
            self._under_way += len(pieces)
        for piece in pieces:
            self._work.put((piece, memory, ticket))
        return ticket

    def close(self) -> None:
        """Stop, wait for the reads under way, and close the files."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _serve(self) -> None:
        bounce = _aligned(self.tuning.chunk + 2 * SECTOR)
        while (work := self._work.get()) is not None:
            piece, memory, ticket = work
            error = None
            if not self._closed and not ticket.failed():
                try:
                    self._read(piece, memory, bounce)
                except ReadError as failure:
                    error = failure
                except OSError as failure:
                    error = ReadError(
                        f"reading {piece.nbytes} bytes at offset {piece.offset} of {piece.file} failed: {failure.strerror}",
                        hint="check the disk, and that the file was not changed; `edgellm verify` checks a whole model",
                    )
            elif self._closed:
                error = ReadError("the model was closed during a read")
            with self._lock:
                self._under_way -= 1
                self.bytes_read += piece.needed
                if self._under_way == 0:
                    self.busy_seconds += time.perf_counter() - self._begun
            ticket.piece_done(error)

    def _read(self, piece: Piece, memory: memoryview, bounce: memoryview) -> None:
        target = bounce if piece.copies else memory[piece.place :]
        target = target[: piece.nbytes]
        got, direct = 0, self.direct and piece.offset % SECTOR == 0
        while got < piece.needed:
            try:
                count = os.preadv(self._open(piece.file, direct), [target[got:]], piece.offset + got)
            except OSError as failure:
                if not direct or failure.errno not in REFUSALS:
                    raise
                direct = False
                continue
            if count == 0:
                raise ReadError(
                    f"{piece.file} ends at offset {piece.offset + got}, but the model needs {piece.needed - got} bytes more",
                    hint="the file was cut short or replaced: download or convert the model again",
                )
            got += count
            direct = direct and got % SECTOR == 0
        if piece.copies:
            source, destination = np.frombuffer(bounce, np.uint8), np.frombuffer(memory, np.uint8)
            for begin, place, length in piece.copies:
                destination[place : place + length] = source[begin : begin + length]

    def _open(self, path: Path, direct: bool) -> int:
        with self._lock:
            key = (path, direct)
            if key not in self._files:
                self._files[key] = open_for_reading(path, direct=direct)
            return self._files[key]


REFUSALS = frozenset({22, 95, 45})
"""errno of filesystems without direct reads: EINVAL, EOPNOTSUPP (Linux), ENOTSUP (macOS)."""


def open_for_reading(path: Path, *, direct: bool) -> int:
    """Open a file, past the page cache where ``direct`` and the system allow it. Raises OSError, ReadError."""
    try:
        if not direct:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if sys.platform == "darwin":
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(descriptor, F_NOCACHE, 1)
            return descriptor
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
    except FileNotFoundError as failure:
        raise ReadError(f"{path} is gone", hint="download or convert the model again") from failure


def plan_pieces(extents: Iterable[Extent], chunk: int, *, direct: bool) -> list[Piece]:
    """Cut extents into reads of about ``chunk`` bytes, straight into the slot where file and memory are aligned alike."""
    extents = sorted(extents, key=lambda extent: (str(extent.file), extent.offset))
    end = max((extent.place + extent.nbytes for extent in extents), default=0)
    pieces: list[Piece] = []
    foreign: list[Extent] = []
    for extent in extents:
        if not direct:
            for begin in range(0, extent.nbytes, chunk):
                length = min(chunk, extent.nbytes - begin)
                pieces.append(Piece(extent.file, extent.offset + begin, length, length, extent.place + begin))
        elif extent.offset % SECTOR == 0 and extent.place % SECTOR == 0:
            last = extent.place + extent.nbytes == end  # what the last sector holds more goes into the slot's padding
            whole = extent.nbytes if last else extent.nbytes // SECTOR * SECTOR
            for begin in range(0, whole, chunk):
                needed = min(chunk, whole - begin)
                padded = -(-needed // SECTOR) * SECTOR
                pieces.append(Piece(extent.file, extent.offset + begin, padded, needed, extent.place + begin))
            rest = extent.nbytes - whole
            if rest:
                foreign.append(Extent(extent.file, extent.offset + whole, rest, extent.place + whole))
        else:
            foreign.append(extent)
    return pieces + _bounced(foreign, chunk)


def _bounced(extents: Sequence[Extent], chunk: int) -> list[Piece]:
    """Aligned reads that cover unaligned extents, with what is to be copied from each."""
    runs: list[list[Extent]] = []
    for extent in extents:
        last = runs[-1][-1] if runs else None
        if last and last.file == extent.file and 0 <= extent.offset - (last.offset + last.nbytes) < GAP:
            runs[-1].append(extent)
        else:
            runs.append([extent])
    pieces = []
    for run in runs:
        begin = run[0].offset // SECTOR * SECTOR
        end = run[-1].offset + run[-1].nbytes
        for start in range(begin, end, chunk):
            stop = min(start + chunk, end)
            copies = []
            for extent in run:
                first, last_byte = max(start, extent.offset), min(stop, extent.offset + extent.nbytes)
                if first < last_byte:
                    copies.append((first - start, extent.place + first - extent.offset, last_byte - first))
            if copies:
                needed = max(at + length for at, _, length in copies)
                padded = -(-needed // SECTOR) * SECTOR
                pieces.append(Piece(run[0].file, start, padded, needed, 0, tuple(copies)))
    return pieces


def _aligned(nbytes: int) -> memoryview:
    whole = np.empty(nbytes + SECTOR, np.uint8)
    begin = -whole.ctypes.data % SECTOR
    return memoryview(whole)[begin : begin + nbytes]
