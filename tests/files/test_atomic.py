"""Files written whole or not at all, beside whatever else lies there."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from support.disk_limits import file_size_limit
from support.processes import all_started, python

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


def test_a_writer_inside_another_ones_writing_mixes_nothing(tmp_path):
    path = tmp_path / "file"

    def slowly():
        yield b"one" * 1000
        write_file(path, [b"two" * 10])
        assert path.read_bytes() == b"two" * 10
        yield b"one" * 1000

    write_file(path, slowly())
    assert path.read_bytes() == b"one" * 2000
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path):
    path = tmp_path / "file"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from edgellm.files.atomic import write_file\n"
        "def parts():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_file(Path(sys.argv[1]), parts())"
    )
    python(code, path, check=False)
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"half"

    def parts():
        assert not left.exists()
        (own,) = tmp_path.iterdir()
        write_file(path, [b"other"])
        assert own.exists(), "a living writer's file stays"
        yield b"whole"

    write_file(path, parts())
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    target = tmp_path / "target"
    target.write_text("somebody's")
    # the fixed name of earlier versions, which was followed
    for name in ("file", "file.edgellm.partial"):
        (tmp_path / name).symlink_to(target)
    write_file(tmp_path / "file", [b"new"])
    assert target.read_text() == "somebody's"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ConversionError, match="not a regular file"):
            write_file(tmp_path / name, [b"data"])
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
    with pytest.raises(ConversionError, match="cannot be written"):
        write_file(tmp_path / "zero\0byte", [b"data"])


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x" * 200 + ".json"])
def test_names_may_be_as_long_as_the_filesystem_takes(tmp_path, name):
    def parts():
        (partial,) = os.listdir(tmp_path)
        assert len(os.fsencode(partial)) <= 143
        yield b"data"

    write_file(tmp_path / name, parts())
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(ConversionError, match="too long"):
        write_file(tmp_path / ("x" * 256), [b"data"])


@pytest.mark.parametrize(
    ("umask", "private", "mode"),
    [(0, True, 0o600), (0o022, True, 0o600), (0, False, 0o666), (0o027, False, 0o640)],
)
def test_files_for_the_owner_alone_are_that_whatever_the_umask(tmp_path, umask, private, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(umask)
    try:
        write_file(path, [b"new"], private=private)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with (
        file_size_limit(1000),
        pytest.raises(ConversionError, match=f"no space left for {path}") as caught,
    ):
        write_file(path, [b"x" * 600, b"x" * 600])
    assert "ulimit" in caught.value.hint
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


WRITERS = """
import os, sys
from pathlib import Path
from edgellm.files.atomic import write_file
sys.stdin.readline()
for turn in range(int(sys.argv[2])):
    write_file(Path(sys.argv[1]), [sys.argv[3].encode() * 5000] * 4)
"""


def test_of_many_writers_each_file_is_whole(tmp_path):
    path = tmp_path / "file"
    words = [[sys.executable, "-c", WRITERS, path, 20, number] for number in range(4)]
    contents = set()
    with all_started(words, stdin=subprocess.PIPE) as writers:
        for writer in writers:
            writer.stdin.write(b"\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            if path.exists():
                contents.add(path.read_bytes())
        contents.add(path.read_bytes())
        assert [writer.returncode for writer in writers] == [0] * 4
    assert contents <= {str(number).encode() * 20_000 for number in range(4)}
    assert os.listdir(tmp_path) == ["file"]
