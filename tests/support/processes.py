"""Python in a process of its own."""

import json
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


def answer_of(code, argument, environment):
    """Return what a fresh interpreter answers: JSON goes in as its argument, JSON comes out."""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(argument)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
