"""One long operation at a time: the second is told who is at work."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from support.processes import all_started, started

from edgellm.errors import ConversionError
from edgellm.files.file_lock import file_lock

HOLDER = """
import sys
from pathlib import Path
from edgellm.files.file_lock import file_lock
with file_lock(Path(sys.argv[1]), "edgellm export"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(destination):
    words = [sys.executable, "-c", HOLDER, destination]
    with started(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process


def lock_once(destination):
    with file_lock(destination, "edgellm convert"):
        pass


def test_the_second_is_told_who_holds_it(tmp_path):
    destination = tmp_path / "made.gguf"
    with holder(destination) as process:
        for _ in range(2):
            with pytest.raises(ConversionError, match="is being written by") as caught:
                lock_once(destination)
            assert f"edgellm export (process {process.pid}, since " in caught.value.message
        lock_once(tmp_path / "other.gguf")
        process.communicate(b"\n")
    lock_once(destination)
    assert os.listdir(tmp_path) == []


def test_a_lock_ends_with_its_process(tmp_path):
    destination = tmp_path / "made.gguf"
    with holder(destination) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.listdir(tmp_path) == ["made.gguf.edgellm.lock"]
    lock_once(destination)
    assert os.listdir(tmp_path) == []


def test_two_threads_or_calls_of_a_process_are_two(tmp_path):
    with (
        file_lock(tmp_path / "made", "export"),
        pytest.raises(ConversionError, match=f"process {os.getpid()}"),
    ):
        lock_once(tmp_path / "made")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1e999}', "[" * 4000, "\x1b[2J"])
def test_a_lock_that_says_nothing_sensible_is_somebodys(tmp_path, content):
    with file_lock(tmp_path / "made", "export"):
        (tmp_path / "made.edgellm.lock").write_text(content)
        with pytest.raises(ConversionError, match=r"by another process$"):
            lock_once(tmp_path / "made")


def test_names_may_be_long_and_places_are_not_followed(tmp_path):
    lock_once(tmp_path / ("x" * 255))
    target = tmp_path / "target"
    (tmp_path / "made.edgellm.lock").symlink_to(target)
    with pytest.raises(ConversionError, match="cannot be written"):
        lock_once(tmp_path / "made")
    assert not target.exists()
    os.mkfifo(tmp_path / "pipe.edgellm.lock")
    with pytest.raises(ConversionError, match="not a regular file"):
        lock_once(tmp_path / "pipe")
    with pytest.raises(ConversionError, match="cannot be written"):
        lock_once(tmp_path / "none" / "made")


STORM = """
import os, sys
from pathlib import Path
from edgellm.errors import ConversionError
from edgellm.files.file_lock import file_lock
destination = Path(sys.argv[1])
sys.stdin.readline()
for _ in range(200):
    try:
        with file_lock(destination, "storm"):
            os.mkdir(destination)  # fails if another one is here
            os.rmdir(destination)
    except ConversionError:
        pass
"""


def test_no_two_ever_hold_it(tmp_path):
    words = [sys.executable, "-c", STORM, tmp_path / "made"]
    with all_started([words] * 4, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as processes:
        for process in processes:
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in processes:
            assert process.communicate()[1] == b""
    assert os.listdir(tmp_path) == []
