"""Bytes from disk: every one of them once, at the right place, and every failure told to who waits for it."""

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.readers import ThrottledReader

from edgellm.checkpoint.buffer import Extent, WeightBuffer
from edgellm.errors import ClosedError, ReadError
from edgellm.files.locations import cache_folder
from edgellm.reading.disk_reader import DiskReader, Tuning
from edgellm.reading.open_files import OpenFiles
from edgellm.reading.read_plan import GAP, SECTOR, plan_reads
from edgellm.reading.tuning import find_tuning, measure_disk, tuned

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


def threads():
    return sorted(thread.name for thread in threading.enumerate() if "reader" in thread.name)


def descriptors():
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


@st.composite
def layouts(draw):
    """Extents of two files whose places do not overlap, aligned or not, near each other or far apart."""
    extents, place = [], 0
    offsets = {Path("a"): 0, Path("b"): 0}
    for _ in range(draw(st.integers(1, 8))):
        path = draw(st.sampled_from(sorted(offsets)))
        offset = offsets[path] + draw(st.sampled_from([0, 1, 16, 5000, GAP - 1, GAP, GAP + 4096]))
        if draw(st.booleans()):
            offset = -(-offset // SECTOR) * SECTOR
        if draw(st.booleans()):
            place = -(-place // SECTOR) * SECTOR
        nbytes = draw(st.integers(1, 50_000) | st.sampled_from([SECTOR, 4 * SECTOR, 16384 * 3]))
        extents.append(Extent(path, offset, nbytes, place))
        offsets[path] = offset + nbytes
        place += nbytes + draw(st.sampled_from([0, 0, 16, 777]))
    return draw(st.permutations(extents))


@given(layouts(), st.sampled_from([SECTOR, 16384, 1 << 20]), st.booleans())
def test_pieces_bring_every_byte_exactly_once(extents, chunk, direct):
    end = max(extent.buffer_offset + extent.nbytes for extent in extents)
    times = np.zeros(-(-end // SECTOR) * SECTOR, np.uint8)
    origin = np.zeros(len(times), np.int64)
    for piece in plan_reads(extents, chunk, direct=direct):
        assert 0 < piece.needed_bytes <= piece.nbytes <= chunk
        if direct:
            assert piece.offset % SECTOR == piece.nbytes % SECTOR == 0
            assert piece.copies or piece.buffer_offset % SECTOR == 0
        for begin, place, length in piece.copies or [(0, piece.buffer_offset, piece.needed_bytes)]:
            assert begin + length <= piece.needed_bytes
            times[place : place + length] += 1
            origin[place : place + length] = np.arange(length) + piece.offset + begin
        # what a direct read brings beyond its need must fall on nobody's bytes
        if not piece.copies:
            beyond = slice(
                piece.buffer_offset + piece.needed_bytes, piece.buffer_offset + piece.nbytes
            )
            assert beyond.start in {beyond.stop, end}
    wanted = np.zeros(len(times), np.uint8)
    for extent in extents:
        span = slice(extent.buffer_offset, extent.buffer_offset + extent.nbytes)
        wanted[span] += 1
        assert (origin[span] == np.arange(extent.nbytes) + extent.offset).all()
    assert (times == wanted).all()


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
    slot = WeightBuffer(max(place + nbytes for _, nbytes, place in spans))
    extents = [Extent(file, offset, nbytes, place) for offset, nbytes, place in spans]
    reader.submit(extents, slot.memory).wait()
    for offset, nbytes, place in spans:
        assert bytes(slot.memory[place : place + nbytes]) == content[offset : offset + nbytes]
    assert reader.bytes_read >= sum(nbytes for _, nbytes, _ in spans)
    assert reader.busy_seconds > 0
    reader.close()


def test_what_is_submitted_again_is_read_again(file, content, reader):
    slot = WeightBuffer(SIZE)
    extent = Extent(file, 0, SIZE, 0)
    reader.submit([extent], slot.memory).wait()
    slot.memory[:] = bytes(len(slot.memory))
    reader.submit([extent], slot.memory).wait()
    assert bytes(slot.memory[:SIZE]) == content
    assert reader.bytes_read == 2 * SIZE


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
        slot = WeightBuffer(SIZE)
        reader.submit([Extent(path, 3, SIZE - 3, 0)], slot.memory).wait()
        assert bytes(slot.memory[: SIZE - 3]) == content[3:]
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            assert not reader.direct
    finally:
        reader.close()
        path.unlink()


def test_a_file_cut_short_is_an_error_with_file_and_offset(file, reader):
    slot = WeightBuffer(SIZE + 100_000)
    with pytest.raises(ReadError, match=rf"{file} ends at offset {SIZE}, .* up to \d+"):
        reader.submit([Extent(file, 0, SIZE + 100_000, 0)], slot.memory).wait()


@pytest.mark.parametrize("change", ["truncate", "rewrite", "touch"])
def test_a_file_changed_while_in_use_is_an_error(file, content, reader, change):
    slot = WeightBuffer(SIZE)
    extent = Extent(file, 0, SIZE, 0)
    reader.submit([extent], slot.memory).wait()
    if change == "truncate":
        os.truncate(file, 100_000)
    elif change == "rewrite":
        file.write_bytes(content[::-1])
    os.utime(file, ns=(0, 0))
    with pytest.raises(ReadError, match=rf"{file} was changed .* at offset \d+"):
        reader.submit([extent], slot.memory).wait()
    other = file.with_name("other")
    other.write_bytes(content)
    reader.submit([Extent(other, 0, SIZE, 0)], slot.memory).wait()  # the reader itself goes on
    assert bytes(slot.memory[:SIZE]) == content


def test_a_file_replaced_while_in_use_is_read_on_as_it_was(file, content):
    reader = DiskReader(files=[file])
    new = file.with_name("new")
    new.write_bytes(content[::-1])
    new.replace(file)
    slot = WeightBuffer(SIZE)
    reader.submit([Extent(file, 0, SIZE, 0)], slot.memory).wait()
    assert bytes(slot.memory[:SIZE]) == content
    reader.close()


def test_a_file_that_is_gone_is_an_error(file, reader):
    slot = WeightBuffer(SIZE)
    before = threads()
    file.unlink()
    with pytest.raises(ReadError, match=f"{file} is gone"):
        reader.submit([Extent(file, 0, SIZE, 0)], slot.memory).wait()
    with pytest.raises(ReadError, match="is gone"):
        DiskReader(files=[file])
    assert threads() == before


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs a file whose reads fail, which Linux has"
)
def test_an_error_of_the_system_says_file_and_offset(reader):
    slot = WeightBuffer(SECTOR)
    with pytest.raises(
        ReadError, match=r"at offset 0 of /proc/self/mem failed: Input/output error"
    ):
        reader.submit([Extent(Path("/proc/self/mem"), 0, SECTOR, 0)], slot.memory).wait()


def test_memory_that_is_too_small_is_an_error_and_not_a_dead_thread(file, reader):
    foreign = Extent(file, 1, 5000, 0)
    with pytest.raises(ReadError, match="offset 0 of"):
        reader.submit([foreign], memoryview(bytearray(10))).wait()
    slot = WeightBuffer(5000)
    reader.submit([foreign], slot.memory).wait()


def test_closing_ends_threads_and_files(file):
    before = threads(), descriptors()
    reader = DiskReader(Tuning(threads=5, read_size=SECTOR), files=[file])
    slots = [WeightBuffer(SIZE) for _ in range(4)]
    tickets = [reader.submit([Extent(file, 0, SIZE, 0)], slot.memory) for slot in slots]
    reader.close()
    reader.close()
    assert all(ticket.done() for ticket in tickets)
    for ticket in tickets:
        if ticket.failed():
            with pytest.raises(ReadError, match="closed during a read"):
                ticket.wait()
    with pytest.raises(ClosedError):
        reader.submit([Extent(file, 0, SIZE, 0)], slots[0].memory)
    assert (threads(), descriptors()) == before


def test_files_are_opened_once(file, tmp_path):
    before = descriptors()
    files = OpenFiles(direct=False)
    for _ in range(3):
        files.descriptor(file)
    assert descriptors() - before in {0, 1}
    with pytest.raises(ReadError, match="is gone"):
        files.descriptor(tmp_path / "nothing")
    files.close()
    assert descriptors() == before


def test_the_throttled_double_is_no_faster_than_asked(file, content):
    reader = ThrottledReader(bytes_per_second=2_000_000)
    slot = WeightBuffer(SIZE)
    begun = time.perf_counter()
    reader.submit([Extent(file, 0, SIZE, 0)], slot.memory).wait()
    assert time.perf_counter() - begun >= SIZE / 2_000_000
    assert bytes(slot.memory[:SIZE]) == content
    reader.close()


def test_a_tuning_is_found_by_measuring_and_small_models_go_without(file):
    before = threads()
    assert isinstance(find_tuning([file], seconds=0.01), Tuning)
    assert measure_disk([file], tuning=Tuning(), seconds=0.01) > 0
    assert tuned([file]) == Tuning()
    assert tuned([]) == Tuning()
    assert threads() == before


def test_a_tuning_is_remembered_for_each_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(600 << 20)
    memory = cache_folder() / "disks.json"
    found = tuned([large])
    disk = f"{large.stat().st_dev:x}"
    assert disk in memory.read_text()
    memory.write_text(
        f'{{"{disk}": {{"threads": 7, "chunk": 4096}}, "other": {{"threads": -1, "chunk": "no"}}}}'
    )
    assert tuned([large]) == Tuning(threads=7, read_size=4096)
    memory.write_text("damaged")
    assert isinstance(found, Tuning)
    assert isinstance(tuned([large]), Tuning)
    assert disk in memory.read_text()
