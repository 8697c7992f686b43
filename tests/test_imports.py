"""Imports run one way, heavy libraries come late, and every module loads without optional ones."""

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from support.paths import ROOT

MOST_FILES = 10
LIBRARIES = "torch transformers mlx_lm numba llvmlite"
HEAVY = {*LIBRARIES.split(), "typer", "rich", "prompt_toolkit"}
HEAVY |= {"tokenizers", "sentencepiece", "jinja2", "huggingface_hub"}
OPTIONAL = {*LIBRARIES.split(), "accelerate", "gguf", "llama_cpp", "triton", "safetensors"}
OPTIONAL |= {"sacrebleu"}
# Modules that write for one optional library and are imported only where it is there.
MAY_NEED = {
    "edgellm.kernels.": "llvmlite",
    "edgellm.bench.torch_backend.": "torch",
}


def script(name):
    """Import a script of the repository."""
    found = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


ladder = script("import_ladder")
MODULES = ladder.modules()


def fresh_python(code):
    """Return what a new interpreter prints on running the code."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def imports():
    """The modules that each module of the repository imports."""
    return ladder.module_graph()


def test_no_module_imports_itself_in_a_circle(imports):
    assert not ladder.circle(imports)


def test_no_folder_imports_itself_in_a_circle(imports):
    assert not ladder.circle(ladder.folders_of(imports))


def test_the_documented_ladder_is_that_of_the_code(imports):
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = ladder.table(ladder.folders_of(imports))
    assert table in page, "paste what `python scripts/import_ladder.py` prints"


def test_circles_and_floors_are_found_in_any_tree(tmp_path):
    files = {
        "edgellm/__init__.py": "",
        "edgellm/errors.py": "",
        "edgellm/engine/__init__.py": "",
        "edgellm/engine/scheduler.py": "def run():\n    from edgellm.generation import decode\n",
        "edgellm/generation/__init__.py": "",
        "edgellm/generation/decode.py": "from edgellm import errors\n",
        "converters/__init__.py": "",
        "bench/__init__.py": "from ..engine import scheduler\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert ladder.circle(ladder.folder_graph(tmp_path)) == []
    assert ladder.ladder(ladder.folder_graph(tmp_path)) == [
        ["converters", "edgellm", "errors"],
        ["generation"],
        ["engine"],
        ["bench"],
    ]
    upward = "from edgellm.engine import scheduler\n"
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    " + upward
    (tmp_path / "edgellm/generation/stats.py").write_text(typing, encoding="utf-8")
    assert ladder.circle(ladder.folder_graph(tmp_path)) == []
    (tmp_path / "edgellm/generation/stats.py").write_text(upward, encoding="utf-8")
    assert ladder.circle(ladder.module_graph(tmp_path)) == []
    assert set(ladder.circle(ladder.folder_graph(tmp_path))) == {"generation", "engine"}


def test_folders_are_small_and_say_what_lives_in_them():
    folders = {path.parent for path in MODULES.values()}
    crowded = {
        folder.relative_to(ROOT).as_posix()
        for folder in folders
        if len([path for path in folder.glob("*.py") if path.stem != "__init__"]) > MOST_FILES
    }
    assert not crowded
    silent = [name for name, path in MODULES.items() if not path.read_text().startswith('"""')]
    assert not silent


def test_docstrings_begin_with_a_contract():
    figures = script("code_figures")
    riddles = {
        name: figures.riddles(ast.parse(path.read_text(encoding="utf-8")))
        for name, path in MODULES.items()
    }
    assert {name: count for name, count in riddles.items() if count} == {}


def test_import_edgellm_is_light_and_has_no_effects():
    code = (
        "import os, signal, sys, threading, warnings\n"
        "def state(): return (dict(os.environ), os.getcwd(), threading.active_count(),"
        " list(warnings.filters), signal.getsignal(signal.SIGINT))\n"
        "before = state()\n"
        "import edgellm\n"
        "assert state() == before\n"
        "import json\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    assert HEAVY.isdisjoint(json.loads(fresh_python(code)))


def test_every_module_loads_without_the_optional_libraries():
    names = [name for name in MODULES if not name.endswith("__main__")]
    code = (
        "import importlib, json, sys\n"
        f"for name in {sorted(OPTIONAL)!r}: sys.modules[name] = None\n"
        "needs = {}\n"
        f"for name in {names!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error: needs[name] = error.name.split('.')[0]\n"
        "print(json.dumps(needs))"
    )
    for module, library in json.loads(fresh_python(code)).items():
        allowed = [prefix for prefix in MAY_NEED if module.startswith(prefix)]
        assert any(library == MAY_NEED[prefix] for prefix in allowed), (module, library)


def test_the_changelog_begins_with_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    headings = [line for line in changes if line.startswith("## ")]
    assert headings[0] == f"## {project['version']}"
    assert metadata.version("edgellm") == project["version"]
