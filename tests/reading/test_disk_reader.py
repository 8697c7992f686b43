"""Bytes from disk: each at its place, and every failure told to who waits for it."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.readers import ThrottledReader
from support.resources import NOTHING, held, more_since

from edgellm.checkpoint.buffer import Extent, WeightBuffer
from edgellm.errors import ClosedError, ReadError
from edgellm.reading.disk_reader import BOUNCE_BYTES, DiskReader, Tuning
from edgellm.reading.read_plan import SECTOR

SIZE = 300_000


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8).tobytes()


@pytest.fixture
def file(tmp_path, content):
    path = tmp_path / "weights"
    path.write_bytes(content)
    return path


@pytest.fixture
def reader():
    reader = DiskReader(Tuning(threads=3, read_size=16384))
    yield reader
    reader.close()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    "spans",
    [
        [(0, SIZE, 0)],
        [(16384, 65536, 0)],
        [(16384, 65537, 0)],
        [(1, 70_000, 0), (70_001, 10, 70_000), (200_000, 99_999, 70_016)],
        [(4096, 4096, 8192), (77, 4000, 0), (50_000, 100_000, 16384)],
        [(SIZE - 1, 1, 0)],
    ],
)
def test_the_bytes_of_a_file_arrive_at_their_places(file, content, spans, direct):
    reader = DiskReader(Tuning(threads=3, read_size=16384), direct=direct)
    buffer = WeightBuffer(max(place + nbytes for _, nbytes, place in spans))
    extents = [Extent(file, offset, nbytes, place) for offset, nbytes, place in spans]
    reader.submit(extents, buffer.memory).wait()
    for offset, nbytes, place in spans:
        assert bytes(buffer.memory[place : place + nbytes]) == content[offset : offset + nbytes]
    assert reader.bytes_read >= sum(nbytes for _, nbytes, _ in spans)
    assert reader.busy_seconds > 0
    reader.close()


def test_what_is_submitted_again_is_read_again(file, content, reader):
    buffer = WeightBuffer(SIZE)
    extent = Extent(file, 0, SIZE, 0)
    reader.submit([extent], buffer.memory).wait()
    buffer.memory[:] = bytes(len(buffer.memory))
    reader.submit([extent], buffer.memory).wait()
    assert bytes(buffer.memory[:SIZE]) == content
    assert reader.bytes_read == 2 * SIZE


def test_bounce_buffers_are_bounded_together():
    for tuning in (Tuning(), Tuning(threads=8), Tuning(read_size=32 << 20), Tuning(threads=64)):
        assert tuning.threads * tuning.bounce_size <= BOUNCE_BYTES
        assert tuning.bounce_size % SECTOR == 0 < tuning.bounce_size
    assert Tuning(read_size=SECTOR).bounce_size == SECTOR


def test_nothing_to_read_is_done_at_once(reader):
    ticket = reader.submit([], memoryview(bytearray()))
    assert ticket.done()
    ticket.wait()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_a_filesystem_without_direct_reads_is_read_all_the_same(content):
    path = Path("/dev/shm") / f"edgellm-test-{os.getpid()}"
    path.write_bytes(content)
    reader = DiskReader(Tuning(threads=2, read_size=16384))
    try:
        buffer = WeightBuffer(SIZE)
        reader.submit([Extent(path, 3, SIZE - 3, 0)], buffer.memory).wait()
        assert bytes(buffer.memory[: SIZE - 3]) == content[3:]
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            assert not reader.direct
    finally:
        reader.close()
        path.unlink()


def test_a_file_cut_short_is_an_error_with_file_and_offset(file, reader):
    buffer = WeightBuffer(SIZE + 100_000)
    with pytest.raises(ReadError, match=rf"{file} ends at offset {SIZE}, .* up to \d+"):
        reader.submit([Extent(file, 0, SIZE + 100_000, 0)], buffer.memory).wait()


@pytest.mark.parametrize("change", ["truncate", "rewrite", "touch"])
def test_a_file_changed_while_in_use_is_an_error(file, content, reader, change):
    buffer = WeightBuffer(SIZE)
    extent = Extent(file, 0, SIZE, 0)
    reader.submit([extent], buffer.memory).wait()
    if change == "truncate":
        os.truncate(file, 100_000)
    elif change == "rewrite":
        file.write_bytes(content[::-1])
    os.utime(file, ns=(0, 0))
    with pytest.raises(ReadError, match=rf"{file} was changed .* at offset \d+"):
        reader.submit([extent], buffer.memory).wait()
    other = file.with_name("other")
    other.write_bytes(content)
    reader.submit([Extent(other, 0, SIZE, 0)], buffer.memory).wait()  # the reader itself goes on
    assert bytes(buffer.memory[:SIZE]) == content


def test_a_file_replaced_while_in_use_is_read_on_as_it_was(file, content):
    reader = DiskReader(files=[file])
    new = file.with_name("new")
    new.write_bytes(content[::-1])
    new.replace(file)
    buffer = WeightBuffer(SIZE)
    reader.submit([Extent(file, 0, SIZE, 0)], buffer.memory).wait()
    assert bytes(buffer.memory[:SIZE]) == content
    reader.close()


def test_a_file_that_is_gone_is_an_error(file, reader):
    buffer = WeightBuffer(SIZE)
    before = held()
    file.unlink()
    with pytest.raises(ReadError, match=f"{file} is gone"):
        reader.submit([Extent(file, 0, SIZE, 0)], buffer.memory).wait()
    with pytest.raises(ReadError, match="is gone"):
        DiskReader(files=[file])
    assert more_since(before) == NOTHING


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs a file whose reads fail, which Linux has"
)
def test_an_error_of_the_system_says_file_and_offset(reader):
    buffer = WeightBuffer(SECTOR)
    with pytest.raises(
        ReadError, match=r"at offset 0 of /proc/self/mem failed: Input/output error"
    ):
        reader.submit([Extent(Path("/proc/self/mem"), 0, SECTOR, 0)], buffer.memory).wait()


def test_memory_that_is_too_small_is_an_error_and_not_a_dead_thread(file, reader):
    foreign = Extent(file, 1, 5000, 0)
    with pytest.raises(ReadError, match="offset 0 of"):
        reader.submit([foreign], memoryview(bytearray(10))).wait()
    buffer = WeightBuffer(5000)
    reader.submit([foreign], buffer.memory).wait()


def test_closing_ends_threads_and_files(file):
    before = held()
    reader = DiskReader(Tuning(threads=5, read_size=SECTOR), files=[file])
    buffers = [WeightBuffer(SIZE) for _ in range(4)]
    tickets = [reader.submit([Extent(file, 0, SIZE, 0)], buffer.memory) for buffer in buffers]
    reader.close()
    reader.close()
    assert all(ticket.done() for ticket in tickets)
    for ticket in tickets:
        if ticket.failed():
            with pytest.raises(ReadError, match="closed during a read"):
                ticket.wait()
    with pytest.raises(ClosedError):
        reader.submit([Extent(file, 0, SIZE, 0)], buffers[0].memory)
    assert more_since(before) == NOTHING


def test_the_throttled_double_is_no_faster_than_asked(file, content):
    reader = ThrottledReader(bytes_per_second=2_000_000)
    buffer = WeightBuffer(SIZE)
    begun = time.perf_counter()
    reader.submit([Extent(file, 0, SIZE, 0)], buffer.memory).wait()
    assert time.perf_counter() - begun >= SIZE / 2_000_000
    assert bytes(buffer.memory[:SIZE]) == content
    reader.close()
