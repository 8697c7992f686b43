"""Imports run one way, heavy libraries come late, and every module loads without the optional ones."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from support.paths import ROOT

FOLDERS = {"edgellm": "edgellm", "converters": "edgellm.converters", "bench": "edgellm.bench"}

# Lowest first; a name imports from its own row and from those before it. `edgellm` is the package's
# __init__.py.
ORDER = [
    "errors",
    "cachedir config wholefile jsonfile",
    "kept architecture shapes meter syntaxtree sandbox template",
    "device hugepages rope cache tokenizer sampling stopping kernels lane turn",
    "layout tensorfile quant store linear",
    "model",
    "native nativecache",
    "slot checkpoint pieces openfiles reader needs plan tuning",
    "paging fingerprint keptfile",
    "loader hub locate remote",
    "steptime promptcache",
    "guess ngrams pace speculation draftmodel drafting planning generate beam prefix answer writing feed seat batch",
    "llm chat",
    "door",
    "lastchat",
    "edgellm",
    "synth converters bench",
    "info forecast selftest verify modelcard upload",
    "doctor",
    "console",
    "editor opening completion options commandgroup backend",
    "repl",
    "talking making looking",
    "cli __main__",
]
RANK = {name: rank for rank, row in enumerate(ORDER) for name in row.split()}
STRANGERS = [set(ORDER[3].split()), {"converters", "bench"}]

LIBRARIES = "torch transformers mlx_lm numba llvmlite"
HEAVY = set(
    f"{LIBRARIES} typer rich prompt_toolkit tokenizers sentencepiece jinja2 huggingface_hub".split()
)
OPTIONAL = set(f"{LIBRARIES} accelerate gguf llama_cpp".split())
# Modules that write for one optional library and are imported only where it is there.
MAY_NEED = {
    "edgellm.kernels.": "llvmlite",
    "edgellm.bench.torch_": "torch",
    "edgellm.bench.triton_": "torch",
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {
        ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): path
        for folder, package in FOLDERS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def imported(name: str, path: Path) -> Iterator[str]:
    """The dotted names of the package that a module imports, at its top or anywhere inside."""
    parents = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "edgellm")
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            if source.split(".")[0] == "edgellm":
                inner = [f"{source}.{alias.name}" for alias in node.names]
                yield from (target if target in modules() else source for target in inner)


def noun(module: str) -> str:
    """The name that stands in ORDER for a module: `kernels` for edgellm.kernels.avx."""
    return module.split(".")[:2][-1]


def fresh_python(code: str) -> str:
    """What a new interpreter prints on running the code."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_has_a_place_in_the_order():
    assert {noun(module) for module in modules()} - RANK.keys() == set()


@pytest.mark.parametrize("module", modules())
def test_imports_run_one_way(module):
    own = noun(module)
    for target in imported(module, modules()[module]):
        other = noun(target)
        assert RANK[other] <= RANK[own], f"{module} imports {target}, which stands above it"
        assert other == own or not any({own, other} <= group for group in STRANGERS), (
            f"{module} must not know {target}"
        )


def test_import_edgellm_is_light_and_has_no_effects():
    code = (
        "import os, signal, sys, threading, warnings\n"
        "def state(): return (dict(os.environ), os.getcwd(), threading.active_count(), list(warnings.filters),"
        " signal.getsignal(signal.SIGINT))\n"
        "before = state()\n"
        "import edgellm\n"
        "assert state() == before\n"
        "import json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    assert HEAVY.isdisjoint(json.loads(fresh_python(code)))


def test_every_module_loads_without_the_optional_libraries():
    code = (
        "import importlib, json, sys\n"
        f"for name in {sorted(OPTIONAL)!r}: sys.modules[name] = None\n"
        "needs = {}\n"
        f"for name in {[name for name in modules() if not name.endswith('__main__')]!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error: needs[name] = error.name.split('.')[0]\n"
        "print(json.dumps(needs))"
    )
    for module, library in json.loads(fresh_python(code)).items():
        assert any(
            module.startswith(prefix) and library == MAY_NEED[prefix] for prefix in MAY_NEED
        ), (module, library)


def test_the_changelog_begins_with_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    headings = [
        line
        for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
        if line[:3] == "## "
    ]
    assert headings[0] == f"## {version}"
    assert metadata.version("edgellm") == version
