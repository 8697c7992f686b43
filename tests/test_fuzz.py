"""A sample of the fuzzers; `python tests/fuzz_folders.py` and its like run 100,000 cases."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("script", "count"), [("fuzz_folders.py", 600), ("fuzz_tokenizers.py", 150)]
)
def test_damaged_input_ends_in_our_error(script, count):
    script = Path(__file__).with_name(script)
    command = [sys.executable, script, "--count", str(count), "--seed", "1000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Error" in done.stdout
