"""Readers that give the bytes on disk: one as slow as asked for, one that fails where asked."""

import queue
import threading
import time

from edgellm.errors import ReadError
from edgellm.reading.disk_reader import Ticket


def copy_extents(extents, memory):
    for extent in extents:
        with extent.file.open("rb") as file:
            file.seek(extent.offset)
            memory[extent.buffer_offset : extent.buffer_offset + extent.nbytes] = file.read(
                extent.nbytes
            )


class ThrottledReader:
    """Reads at most a given number of bytes per second, whatever the disk does."""

    def __init__(self, bytes_per_second):
        self.bytes_per_second = bytes_per_second
        self.bytes_read = 0
        self.busy_seconds = 0.0
        self.closed = False
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="throttled-reader", daemon=True)
        self._thread.start()

    def submit(self, extents, memory):
        ticket = Ticket(1)
        self._work.put((tuple(extents), memory, ticket))
        return ticket

    def close(self):
        self.closed = True
        self._work.put(None)
        self._thread.join()

    def _serve(self):
        while (work := self._work.get()) is not None:
            extents, memory, ticket = work
            begun = time.perf_counter()
            copy_extents(extents, memory)
            total = sum(extent.nbytes for extent in extents)
            time.sleep(max(0.0, begun + total / self.bytes_per_second - time.perf_counter()))
            self.bytes_read += total
            self.busy_seconds += time.perf_counter() - begun
            ticket.count_read()


class FailingReader:
    """Reads in the caller's thread; the read with byte ``fail_at`` of all asked for fails."""

    def __init__(self, fail_at=None):
        self.fail_at = fail_at
        self.bytes_read = 0
        self.busy_seconds = 0.0
        self.closed = False
        self.submitted = []

    def submit(self, extents, memory):
        assert not self.closed
        self.submitted.append(tuple(extents))
        ticket = Ticket(1)
        total = sum(extent.nbytes for extent in extents)
        error = None
        if self.fail_at is not None and self.bytes_read <= self.fail_at < self.bytes_read + total:
            where = next(iter(extents))
            error = ReadError(
                f"reading {where.nbytes} bytes at offset {where.offset} of {where.file} failed: "
                "it was asked to"
            )
        else:
            copy_extents(extents, memory)
        self.bytes_read += total
        ticket.count_read(error)
        return ticket

    def close(self):
        self.closed = True
