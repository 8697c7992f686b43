"""Files written whole or not at all, beside whatever else lies there."""

import hashlib

import numpy as np
import pytest

from edgellm.errors import ConversionError, ReadError
from edgellm.files.atomic import FileRecord, file_record, write_file


def test_parts_of_every_kind_are_written_one_after_the_other(tmp_path):
    path = tmp_path / "file"
    parts = [b"one", bytearray(b"two"), memoryview(b"three"), b"", np.arange(3, dtype=np.uint16)]
    data = b"onetwothree" + np.arange(3, dtype=np.uint16).tobytes()
    record = write_file(path, parts)
    assert path.read_bytes() == data
    assert record == FileRecord("file", len(data), hashlib.sha256(data).hexdigest())
    assert file_record(path) == record


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def parts():
        yield b"new"
        assert path.read_bytes() == b"old"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_file(path, parts())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("fails", [False, True])
def test_strangers_files_beside_it_stay(tmp_path, fails):
    strangers = [tmp_path / f"file{suffix}" for suffix in (".partial", ".tmp", ".new", "~", ".bak")]
    for stranger in strangers:
        stranger.write_text("somebody's")

    def parts():
        yield b"new"
        if fails:
            raise RuntimeError

    if fails:
        with pytest.raises(RuntimeError):
            write_file(tmp_path / "file", parts())
    else:
        write_file(tmp_path / "file", parts())
    assert all(stranger.read_text() == "somebody's" for stranger in strangers)


def test_refusals_are_said(tmp_path):
    with pytest.raises(ConversionError, match="cannot be written: No such file"):
        write_file(tmp_path / "none" / "file", [b"data"])
    with pytest.raises(ReadError, match="cannot be read"):
        file_record(tmp_path / "none")
