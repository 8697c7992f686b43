"""A sample of the interrupts of a cluster; `python tests/stress/cluster_interrupts.py` has many."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]


def test_commands_of_a_cluster_are_interrupted_at_random_moments():
    script = Path(__file__).with_name("cluster_interrupts.py")
    command = [sys.executable, script, "--count", "8", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.endswith("\n0 faults\n")
