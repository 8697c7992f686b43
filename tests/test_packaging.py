"""The wheel holds what the tree holds."""

import importlib
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


def copied(folder: str, destination: Path) -> Path:
    """A copy of one folder of the tree, without caches."""
    return Path(shutil.copytree(ROOT / folder, destination / folder, ignore=CLUTTER))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the tree, built in a copy: what an earlier build left behind must not hide what is missing."""
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        copied(folder, source)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_every_folder_with_modules_is_listed_as_a_package():
    found = {
        ".".join([FOLDERS[folder].replace("/", "."), *path.parent.relative_to(ROOT / folder).parts])
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_the_wheel_holds_every_file_of_the_tree(wheel, tmp_path):
    expected = {
        f"{installed}/{path.relative_to(tmp_path / folder).as_posix()}"
        for folder, installed in FOLDERS.items()
        for path in copied(folder, tmp_path).rglob("*")
        if path.is_file()
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    information = {name for name in names if ".dist-info/" in name}
    assert names - information == expected
    assert any(name.endswith("/LICENSE") for name in information)


def test_the_wheel_runs_away_from_the_tree(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import importlib\n"
        f"for name in {PROJECT['tool']['setuptools']['packages']!r}: print(importlib.import_module(name).__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert all(Path(line).is_relative_to(tmp_path) for line in done.stdout.splitlines())


def test_the_command_is_there():
    module, function = PROJECT["project"]["scripts"]["edgellm"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
