"""A sample of the kills; `python tests/stress/kills.py` kills everything that writes."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_killed_at_random_moments_and_run_again_nothing_is_lost():
    script = Path(__file__).with_name("kills.py")
    command = [
        sys.executable,
        script,
        "--count",
        "2",
        "--seed",
        "1",
        "--only",
        "convert force,export",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.endswith("\n0 faults\n")
