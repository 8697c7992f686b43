"""A process that the system holds to a number of bytes."""

import subprocess
import sys

import pytest
from support.memory_cap import can_cap

from edgellm.bench.worker.memory_cap import capped
from edgellm.errors import ConfigError


def test_a_capped_process_cannot_take_more():
    if not can_cap():
        with (
            pytest.raises(ConfigError, match="memory cannot be capped here"),
            capped(["true"], 1 << 30),
        ):
            pass
        return
    take = "import sys; print(len(bytearray(int(sys.argv[1]))))"
    for megabytes, survives in ((20, True), (400, False)):
        command = [sys.executable, "-c", take, str(megabytes << 20)]
        with capped(command, 200 << 20) as capped_command:
            done = subprocess.run(capped_command, capture_output=True, check=False)
        assert (done.returncode == 0) == survives
