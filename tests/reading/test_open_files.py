"""Files stay open, each once."""

import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest
from support.resources import NOTHING, held, more_since

from edgellm.errors import ReadError
from edgellm.reading.disk_reader import DiskReader
from edgellm.reading.open_files import OpenFiles
from edgellm.reading.tuning import measure_disk, tuned


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_reads_that_give_less_than_they_were_asked_for_go_on():
    symbols = Path("/proc/kallsyms")  # of which Linux gives a page a read
    if not symbols.exists() or len(symbols.read_bytes()) < 30_000:
        pytest.skip("this system has no such file")
    expected = symbols.read_bytes()[100:30_000]
    found = bytearray(len(expected))
    files = OpenFiles(direct=False)
    assert files.read(symbols, memoryview(found), 100) < len(expected)
    files.fill(symbols, memoryview(found), 100, needed=len(expected))
    assert found == expected
    files.close()


def test_a_file_that_cannot_be_opened_is_an_error_that_says_why(file):
    before = held()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(ReadError, match="cannot be opened: Too many open files") as raised:
            DiskReader(files=[file])
        assert "ulimit -n" in raised.value.hint
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert more_since(before) == NOTHING


def test_a_file_that_is_gone_before_it_is_measured_is_an_error(tmp_path):
    for measure in (tuned, measure_disk):
        with pytest.raises(ReadError, match="is gone"):
            measure([tmp_path / "nothing"])


def test_files_are_opened_once(file, tmp_path):
    before = held()
    files = OpenFiles(direct=False)
    for _ in range(3):
        files.descriptor(file)
    assert len(more_since(before)[1]) <= 1
    with pytest.raises(ReadError, match="is gone"):
        files.descriptor(tmp_path / "nothing")
    files.close()
    assert more_since(before) == NOTHING
