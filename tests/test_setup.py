"""The set-up script finds a Python that works, and says what to install where there is none."""

import os
import shutil
import subprocess
import sys

import pytest
from support.paths import ROOT


@pytest.fixture
def machine(tmp_path):
    """A folder to use as the whole PATH: the tools that the script calls, and no Python."""
    for tool in ("sh", "dirname", "sed", "uname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    return tmp_path


def program(folder, name, script):
    """Put an executable into the folder."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def find_python(machine, **variables):
    """Run the search with nothing but this machine's programs on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    environment |= {"PATH": str(machine), **variables}
    command = ["sh", str(ROOT / "scripts" / "setup.sh"), "python"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_shim_that_fails_and_an_old_python_are_passed_over(machine):
    program(machine, "python3.11", 'echo "shim: python3.11: command not found" >&2; exit 127')
    program(machine, "python3.12", 'echo "it is Python 3.9"; exit 1')
    program(machine, "python3", f'exec "{sys.executable}" "$@"')
    done = find_python(machine)
    assert (done.returncode, done.stdout) == (0, "python3\n"), done.stderr


def test_a_python_that_is_named_is_used_before_others(machine):
    for name in ("python3.11", "my-python"):
        program(machine, name, f'exec "{sys.executable}" "$@"')
    assert find_python(machine, PYTHON="my-python").stdout == "my-python\n"


def test_a_named_python_that_does_not_work_is_an_error(machine):
    program(machine, "python3.11", f'exec "{sys.executable}" "$@"')
    done = find_python(machine, PYTHON="my-python")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: PYTHON=my-python cannot be used" in done.stderr


def test_uv_stands_in_where_there_is_no_python(machine):
    program(machine, "uv", "exit 1")
    assert find_python(machine).stdout == "uv\n"


def test_without_any_python_it_says_what_it_saw_and_what_to_install(machine):
    program(machine, "python3", 'echo "it is Python 3.9"; exit 1')
    done = find_python(machine)
    assert (done.returncode, done.stdout) == (1, "")
    assert "python3: it is Python 3.9" in done.stderr
    assert "error: no Python 3.11 or later was found\n\nhint: install one" in done.stderr
