"""Files of strangers: plain ones, and not more than was asked for."""

import os
from pathlib import Path

import pytest

from edgellm.errors import FormatError, ReadError
from edgellm.files.bounded import read_bounded


def test_only_plain_files_up_to_a_size_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(FormatError, match="larger than 4 bytes"):
        read_bounded(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path(os.devnull), Path("/dev/zero")):
        with pytest.raises(FormatError, match="not a regular file"):
            read_bounded(place, 5)
    for place in (tmp_path / "none", tmp_path / "zero\0byte"):
        with pytest.raises(ReadError, match="cannot be read"):
            read_bounded(place, 5)
