"""Bytes from disk into a buffer: direct, parallel, and ahead of those that wait for them."""

from __future__ import annotations

import os
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

BOUNCE_BYTES = 32 << 20
"""Bytes of all bounce buffers, which no budget counts."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a disk is read.

    Attributes:
        threads: threads that read at the same time.
        read_size: bytes of a read at most; whole sectors.
    """

    threads: int = 4
    read_size: int = 8 << 20

    @property
    def bounce_size(self) -> int:
        """Bytes of a read that goes through a bounce buffer; each thread has one."""
        share = BOUNCE_BYTES // self.threads // SECTOR * SECTOR
        return min(self.read_size, max(SECTOR, share))

    def __post_init__(self) -> None:
        """Check both."""
        assert self.threads > 0, "somebody must read"
        assert self.read_size > 0, "a read has bytes"
        assert self.read_size % SECTOR == 0, "direct reads are of whole sectors"


class Ticket:
    """Reads that were submitted together, and how far they are.

    Args:
        reads: reads that it consists of.
    """

    def __init__(self, reads: int) -> None:
        self._left = reads
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._error: ReadError | None = None
        if reads == 0:
            self._finished.set()

    def done(self) -> bool:
        """Return whether all bytes have arrived, or the read has failed."""
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
        """Return whether a read has failed; the others are then not worth their time."""
        return self._error is not None

    def count_read(self, error: ReadError | None = None) -> None:
        """Count a read that has ended; readers call this."""
        with self._lock:
            # the first error is the one that is told
            self._error = self._error or error
            self._left -= 1
            if self._left == 0:
                self._finished.set()


class Reader(Protocol):
    """Fills buffers from files."""

    @property
    def bytes_read(self) -> int:
        """Bytes that have arrived so far."""
        ...

    @property
    def busy_seconds(self) -> float:
        """Seconds so far in which at least one read was under way."""
        ...

    def submit(self, extents: Sequence[Extent], memory: memoryview) -> Ticket:
        """Begin to read into a buffer's memory, after what was submitted before; do not wait."""
        ...

    def close(self) -> None:
        """Stop, wait for the reads under way, and close the files."""
        ...


class DiskReader:
    """Reads with a few threads, past the page cache where the filesystem allows it.

    Args:
        tuning: threads and size of a read.
        files: opened at once, so that a folder which is replaced later is read on as it was; others
            when they are first read.
        direct: whether to go past the page cache.

    Raises:
        ReadError: one of ``files`` is gone, or cannot be opened.
    """

    def __init__(
        self, tuning: Tuning | None = None, *, files: Iterable[Path] = (), direct: bool = True
    ) -> None:
        self.tuning: Tuning = tuning or Tuning()
        self._direct = direct
        self._files = OpenFiles(direct=direct)
        try:
            for file in files:
                self._files.descriptor(file)
        except BaseException:
            self._files.close()
            raise
        # a layer is read again and again: its reads are planned once
        self._plans: dict[tuple[Extent, ...], list[ReadSpan]] = {}
        # None tells a thread to end
        self._work: queue.SimpleQueue[tuple[ReadSpan, memoryview, Ticket] | None]
        self._work = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False
        self._under_way = 0
        self._bytes_read = 0
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._threads = [
            threading.Thread(target=self._serve, name=f"edgellm-reader-{number}", daemon=True)
            for number in range(self.tuning.threads)
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
            if self._under_way:
                return self._busy_seconds + time.perf_counter() - self._busy_since
            return self._busy_seconds

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
        """Begin to read into a buffer's memory, after what was submitted before; do not wait."""
        key = tuple(extents)
        reads = self._plans.get(key)
        if reads is None:
            tuning = self.tuning
            reads = plan_reads(
                key, tuning.read_size, direct=self._direct, bounce_size=tuning.bounce_size
            )
            self._plans[key] = reads
        ticket = Ticket(len(reads))
        with self._lock:
            if self._closed:
                raise ClosedError("the model was closed")
            if self._under_way == 0:
                self._busy_since = time.perf_counter()
            self._under_way += len(reads)
            for read in reads:
                self._work.put((read, memory, ticket))
        return ticket

    def close(self) -> None:
        """Stop, wait for the reads under way, and close the files; not in a forked process."""
        if os.getpid() != self._process:  # where its threads are not
            return
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
        """Read what is submitted, until told to end: the work of one thread."""
        bounce = _aligned_memory(self.tuning.bounce_size)
        while (work := self._work.get()) is not None:
            read, memory, ticket = work
            error: ReadError | None = None
            try:
                if self._closed:
                    raise ReadError("the model was closed during a read")
                if not ticket.failed():
                    self._read(read, memory, bounce)
            # whatever it is: the thread goes on, and who waits must learn of it
            except Exception as failure:
                error = _read_error(read, failure)
            with self._lock:
                self._under_way -= 1
                if error is None:
                    self._bytes_read += read.needed_bytes
                if self._under_way == 0:
                    self._busy_seconds += time.perf_counter() - self._busy_since
            # a buffer must not outlive its model because a thread is idle
            del work, memory
            ticket.count_read(error)

    def _read(self, read: ReadSpan, memory: memoryview, bounce: memoryview) -> None:
        target = bounce if read.copies else memory[read.buffer_offset :]
        target = target[: read.nbytes]
        self._files.fill(read.file, target, read.offset, needed=read.needed_bytes)
        if read.copies:
            # NumPy copies without Python's lock
            source, destination = np.frombuffer(bounce, np.uint8), np.frombuffer(memory, np.uint8)
            for copy in read.copies:
                destination[copy.target : copy.target + copy.nbytes] = source[
                    copy.source : copy.source + copy.nbytes
                ]


def _read_error(read: ReadSpan, failure: Exception) -> ReadError:
    """Return any failure as an error that says what was read."""
    if isinstance(failure, ReadError):
        return failure
    return ReadError(
        f"reading {read.nbytes} bytes at offset {read.offset} of {read.file} failed: {failure!r}"
    )


def _aligned_memory(nbytes: int) -> memoryview:
    """Return memory that begins at a multiple of a sector, as direct reads need it."""
    memory = np.empty(nbytes + SECTOR, np.uint8)
    begin = -memory.ctypes.data % SECTOR
    return memoryview(memory)[begin : begin + nbytes]
