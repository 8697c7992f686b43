"""Bytes from disk into a buffer: direct, parallel, and ahead of whoever waits for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgellm.checkpoint.buffer import Extent
from edgellm.errors import ClosedError, ReadError
from edgellm.reading.open_files import OpenFiles
from edgellm.reading.read_plan import SECTOR, ReadSpan, plan_reads


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a disk is read: as many threads, each with pieces of ``chunk`` bytes, whole sectors."""

    threads: int = 4
    chunk: int = 8 << 20

    def __post_init__(self) -> None:
        """Check both."""
        assert self.threads > 0, "somebody must read"
        assert self.chunk > 0, "a piece has bytes"
        assert self.chunk % SECTOR == 0, "direct reads are of whole sectors"


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

    def count_read(self, error: ReadError | None = None) -> None:
        """Count one piece (the reader calls this)."""
        with self._lock:
            self._error = self._error or error
            self._left -= 1
            if self._left == 0:
                self._finished.set()


class Reader(Protocol):
    """Fills slots from files."""

    @property
    def bytes_read(self) -> int:
        """Bytes that have arrived so far."""
        ...

    @property
    def busy_seconds(self) -> float:
        """Seconds so far in which at least one read was under way."""
        ...

    def submit(self, extents: Sequence[Extent], memory: memoryview) -> Ticket:
        """Begin to read into a slot's memory, after what was submitted before; returns at once."""
        ...

    def close(self) -> None:
        """Stop, wait for the reads under way, and close the files."""
        ...


class DiskReader:
    """Reads with a few threads, past the page cache where the filesystem allows it.

    Args:
        tuning: threads and piece size.
        files: opened at once, so that a folder which is replaced later is read on as it was; others
            when they are first read.
        direct: whether to go past the page cache.
    """

    def __init__(
        self, tuning: Tuning | None = None, *, files: Iterable[Path] = (), direct: bool = True
    ) -> None:
        self.tuning = tuning or Tuning()
        self._files = OpenFiles(direct=direct)
        self._direct = direct
        self._plans: dict[tuple[Extent, ...], list[ReadSpan]] = {}
        self._lock = threading.Lock()
        self._bytes_read, self._busy, self._begun, self._under_way = 0, 0.0, 0.0, 0
        self._work: queue.SimpleQueue[tuple[ReadSpan, memoryview, Ticket] | None] = (
            queue.SimpleQueue()
        )
        self._closed = False
        try:
            for file in files:
                self._files.descriptor(file)
        except BaseException:
            self._files.close()
            raise
        self._threads = [
            threading.Thread(target=self._serve, name=f"edgellm-reader-{n}", daemon=True)
            for n in range(self.tuning.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def bytes_read(self) -> int:
        """Bytes that have arrived so far."""
        return self._bytes_read

    @property
    def busy_seconds(self) -> float:
        """Seconds so far in which at least one read was under way."""
        with self._lock:
            return self._busy + (time.perf_counter() - self._begun if self._under_way else 0.0)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        with self._lock:
            return self._under_way == 0

    @property
    def direct(self) -> bool:
        """Whether everything so far was read past the page cache."""
        return self._direct and not self._files.refused

    def submit(self, extents: Sequence[Extent], memory: memoryview) -> Ticket:
        """Begin to read into a slot's memory, after what was submitted before; returns at once."""
        key = tuple(extents)
        pieces = self._plans.get(key)
        if pieces is None:
            pieces = self._plans[key] = plan_reads(key, self.tuning.chunk, direct=self._direct)
        ticket = Ticket(len(pieces))
        with self._lock:
            if self._closed:
                raise ClosedError("the model was closed")
            if self._under_way == 0:
                self._begun = time.perf_counter()
            self._under_way += len(pieces)
            for piece in pieces:
                self._work.put((piece, memory, ticket))
        return ticket

    def close(self) -> None:
        """Stop, wait for the reads under way, and close the files."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for _ in self._threads:
                self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._files.close()

    def _serve(self) -> None:
        bounce = _aligned(self.tuning.chunk)
        while (work := self._work.get()) is not None:
            piece, memory, ticket = work
            error: ReadError | None = None
            try:
                if self._closed:
                    raise ReadError("the model was closed during a read")
                if not ticket.failed():
                    self._read(piece, memory, bounce)
            # whatever it is: the thread goes on, and who waits must learn of it
            except Exception as failure:
                error = _read_error(piece, failure)
            with self._lock:
                self._under_way -= 1
                self._bytes_read += 0 if error else piece.needed
                if self._under_way == 0:
                    self._busy += time.perf_counter() - self._begun
            del work, memory  # a slot must not outlive its model because a thread is idle
            ticket.count_read(error)

    def _read(self, piece: ReadSpan, memory: memoryview, bounce: memoryview) -> None:
        target = bounce if piece.copies else memory[piece.place :]
        target = target[: piece.nbytes]
        got = 0
        while got < piece.needed:
            count = self._files.read(piece.file, target[got:], piece.offset + got)
            if count == 0:
                raise ReadError(
                    f"{piece.file} ends at offset {self._files.size(piece.file)}, but the model needs the bytes up to "
                    f"{piece.offset + piece.needed}",
                    hint="the file was cut short or replaced: download or convert the model again",
                )
            got += count
        if piece.copies:
            source, destination = np.frombuffer(bounce, np.uint8), np.frombuffer(memory, np.uint8)
            for begin, place, length in piece.copies:
                destination[place : place + length] = source[begin : begin + length]


def _read_error(piece: ReadSpan, failure: Exception) -> ReadError:
    if isinstance(failure, ReadError):
        return failure
    reason = failure.strerror if isinstance(failure, OSError) else failure
    return ReadError(
        f"reading {piece.nbytes} bytes at offset {piece.offset} of {piece.file} failed: {reason}",
        hint="check the disk, and that the file was not changed; `edgellm verify` checks a whole model",
    )


def _aligned(nbytes: int) -> memoryview:
    whole = np.empty(nbytes + SECTOR, np.uint8)
    begin = -whole.ctypes.data % SECTOR
    return memoryview(whole)[begin : begin + nbytes]
