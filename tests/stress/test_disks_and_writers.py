"""Small samples of ``disks.py`` and ``writers.py``, which are run by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent


def can_mount():
    words = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    words += ["mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(script, *arguments):
    command = [sys.executable, FOLDER / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_export_on_a_full_and_on_a_read_only_disk():
    if not can_mount():
        pytest.skip("needs a mount namespace")
    said = run("disks.py", "--states", "full,read-only", "export --force")
    assert "more than the disk has free" in said
    assert "Read-only file system" in said


def test_many_writers_of_one_name():
    said = run("writers.py", "--writers", "2", "--rounds", "5", "file")
    assert "| file | 2 x 5 | 10 | 0 | 0 |" in said
