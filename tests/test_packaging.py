"""The wheel holds what the tree holds, and building it warns of nothing."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"edgellm": "edgellm", "converters": "edgellm/converters", "bench": "edgellm/bench"}
CLUTTER = shutil.ignore_patterns("__pycache__", ".*")
TEXTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def copied(folder, destination):
    """A copy of one folder of the tree, without caches."""
    return Path(shutil.copytree(ROOT / folder, destination / folder, ignore=CLUTTER))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel built in a copy of the tree, and what was said meanwhile.

    In a copy, since what an earlier build left behind would hide what is missing.
    """
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        copied(folder, source)
    for name in TEXTS:
        shutil.copy(ROOT / name, source)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    # setuptools warns where Python is told to write no bytecode
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=source,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel, said


def test_building_warns_of_nothing(built):
    _, said = built
    assert "warning" not in said.lower()
    assert "absent" not in said


def test_the_wheel_holds_every_file_of_the_tree(built, tmp_path):
    expected = {
        f"{installed}/{path.relative_to(tmp_path / folder).as_posix()}"
        for folder, installed in FOLDERS.items()
        for path in copied(folder, tmp_path).rglob("*")
        if path.is_file()
    }
    wheel, _ = built
    names = set(zipfile.ZipFile(wheel).namelist())
    information = {name for name in names if ".dist-info/" in name}
    assert names - information == expected
    assert any(name.endswith("/LICENSE") for name in information)


def test_the_wheel_runs_away_from_the_tree(built, tmp_path):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        packages = [
            name.removesuffix("/__init__.py").replace("/", ".")
            for name in archive.namelist()
            if name.endswith("/__init__.py")
        ]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import importlib\n"
        f"for name in {packages!r}: print(importlib.import_module(name).__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(packages)
    assert all(Path(line).is_relative_to(tmp_path) for line in lines)


def test_the_command_is_there():
    module, function = PROJECT["project"]["scripts"]["edgellm"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
