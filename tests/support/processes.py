"""Python in a process of its own."""

import subprocess
import sys


def python(code, *arguments, check=True):
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
    ).stdout
