"""Type checkers refuse wrong programs, each at its very line, and pass right ones.

They see edgellm as an editable installation has it, and its types as an installed wheel has them.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
WRONG = sorted((HERE / "wrong").glob("*.py"))
RIGHT = sorted((HERE / "right").glob("*.py"))
FOLDERS = {"edgellm": "edgellm", "converters": "edgellm/converters", "bench": "edgellm/bench"}
MARK = "  # refused"
LEAST_KNOWN = 0.99

# A checker keeps its downloads where a person's other programs do, not where tests do.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}


def run(command, *, cwd, **variables):
    """What a checker has said on its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.stdout


def run_pyright(*arguments, cwd, **variables):
    """The JSON that pyright prints; skipped where there is no pyright, which CI has."""
    unavailable = "pyright cannot be had: "
    if importlib.util.find_spec("pyright") is None:
        unavailable += "the extra `acceptance` is not installed"
    else:
        command = [sys.executable, "-m", "pyright", "--outputjson", *arguments]
        try:
            said = run(command, cwd=cwd, **variables)
            return json.loads(said[said.index("{") :])
        except (AssertionError, ValueError) as error:  # it downloads itself when it first runs
            unavailable += str(error)[-300:]
    if os.environ.get("CI"):
        pytest.fail(unavailable)
    pytest.skip(unavailable)


def environment(place):
    """A virtual environment with the libraries that are installed here; its site-packages."""
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    return packages


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The programs in a project of their own, whose Python has an editable installation."""
    place = tmp_path_factory.mktemp("project")
    packages = environment(place / ".venv")
    build = "from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    run([sys.executable, "-c", f"import sys; {build}", place], cwd=ROOT)
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    for folder in ("right", "wrong"):
        shutil.copytree(HERE / folder, place / folder)
    return place


@pytest.fixture(scope="session")
def mypy(project):
    """The lines that `mypy --strict` refuses, by program."""
    said = run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--python-executable", project / ".venv/bin/python"),
            *("--python-version", "3.12", "right", "wrong"),
        ],
        cwd=project,
    )
    return lines_by_program(re.findall(r"^(.+?):(\d+): error", said, re.MULTILINE))


@pytest.fixture(scope="session")
def pyright(project):
    """The lines that pyright refuses, by program; right ones are read in its strict mode."""
    settings = {
        "include": ["right", "wrong"],
        "strict": ["right"],
        "reportUnnecessaryComparison": "error",
        "pythonVersion": "3.12",
    }
    (project / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    report = run_pyright("--pythonpath", project / ".venv/bin/python", cwd=project)
    assert report["summary"]["filesAnalyzed"] == len(WRONG) + len(RIGHT)
    return lines_by_program(
        (found["file"], found["range"]["start"]["line"] + 1)
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    )


def lines_by_program(errors):
    """The lines of errors by the names of their files."""
    lines = {}
    for file, line in errors:
        lines.setdefault(Path(file).name, set()).add(int(line))
    return lines


def marked_lines(program):
    """The lines of a program that are to be refused."""
    lines = program.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith(MARK)}


def named(programs):
    return pytest.mark.parametrize("program", programs, ids=lambda program: program.stem)


def test_there_are_twenty_of_each():
    assert min(len(WRONG), len(RIGHT)) >= 20
    assert all(len(marked_lines(program)) == 1 for program in WRONG)


@named(WRONG)
def test_mypy_refuses_a_wrong_program_at_its_line(program, mypy):
    assert mypy.get(program.name) == marked_lines(program)


@named(WRONG)
def test_pyright_refuses_a_wrong_program_at_its_line(program, pyright):
    assert pyright.get(program.name) == marked_lines(program)


@named(RIGHT)
def test_mypy_passes_a_right_program(program, mypy):
    assert program.name not in mypy


@named(RIGHT)
def test_pyright_passes_a_right_program(program, pyright):
    assert program.name not in pyright


def test_the_types_of_public_symbols_are_known(tmp_path):
    packages = environment(tmp_path / "venv")
    for folder, installed in FOLDERS.items():
        clutter = shutil.ignore_patterns("__pycache__", "bundled")
        shutil.copytree(ROOT / folder, packages / installed, ignore=clutter, dirs_exist_ok=True)
    report = run_pyright(
        *("--verifytypes", "edgellm", "--ignoreexternal"),
        cwd=tmp_path,
        VIRTUAL_ENV=str(tmp_path / "venv"),
        PATH=os.pathsep.join([str(tmp_path / "venv/bin"), os.environ["PATH"]]),
    )
    known = report["typeCompleteness"]["completenessScore"]
    sys.stdout.write(f"{known:.2%} of {report['typeCompleteness']['exportedSymbolCounts']}\n")
    assert known >= LEAST_KNOWN
