"""A sample of the kills of training; `python tests/stress/training_kills.py` has many."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_run_that_is_killed_at_random_moments_ends_in_the_same_bytes():
    script = Path(__file__).with_name("training_kills.py")
    command = [sys.executable, script, "--count", "5", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.endswith("\n0 faults\n")
