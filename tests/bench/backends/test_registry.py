"""The table of backends: every row has its class, and is installed only when all it needs is."""

import ast
import json
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.without import without

from edgellm.bench.backends import registry
from edgellm.bench.backends.registry import (
    BACKENDS,
    Backend,
    RuntimeSettings,
    backend_named,
    open_runtime,
)
from edgellm.converters.synthetic import synthesize
from edgellm.errors import BackendError, ConfigError

PACKAGES = sorted({package for backend in BACKENDS.values() for package in backend.packages})

INSTALLED = """
import json
from edgellm.bench.backends.registry import BACKENDS
print(json.dumps([name for name, backend in BACKENDS.items() if backend.installed]))
"""


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_what_opens_it(name):
    module, _, attribute = BACKENDS[name].target.partition(":")
    source = Path(find_spec(module).origin).read_text(encoding="utf-8")
    made = (ast.ClassDef, ast.FunctionDef)
    names = [node.name for node in ast.parse(source).body if isinstance(node, made)]
    assert attribute in names


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_that_needs_packages_says_how_to_install_them(name):
    backend = BACKENDS[name]
    assert bool(backend.packages) == bool(backend.install)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError) as raised:
        backend_named("transformer")
    assert raised.value.hint == "did you mean transformers?"


@pytest.mark.parametrize("package", [*PACKAGES, "llvmlite", "triton"])
def test_a_backend_without_one_of_its_packages_is_not_installed(package):
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED],
        capture_output=True,
        text=True,
        check=True,
        env=without(package),
    )
    expected = [
        name
        for name, backend in BACKENDS.items()
        if backend.installed and package not in backend.packages
    ]
    assert json.loads(done.stdout) == expected


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(monkeypatch):
    row = Backend(target="nobody:Runs", packages=("json", "no_such_package"), install="pip it")
    monkeypatch.setitem(BACKENDS, "no-such", row)
    with pytest.raises(BackendError, match="needs no_such_package, which is not") as raised:
        open_runtime("no-such", "model", RuntimeSettings())
    assert raised.value.hint == "pip it"


def test_a_plain_install_measures_what_it_can_and_says_the_rest(tmp_path):
    synthesize("tiny-llama", tmp_path / "model", bits=16)
    command = [sys.executable, "-m", "edgellm", "bench", str(tmp_path / "model"), "--json"]
    command += ["--prompt-tokens", "8", "--gen-tokens", "2", "--repetitions", "1"]
    command += ["--threads", "1"]
    missing = without("llama_cpp", "torch", "transformers", "llvmlite", "gguf")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=missing)
    assert done.returncode == 0, done.stderr
    measured = {record["backend"] for record in json.loads(done.stdout)["records"]}
    assert "edgellm" in measured
    assert measured.isdisjoint({"cpu", "cuda", "transformers", "llama.cpp", "mlx-lm"})
    assert "not measured: the cpu backend needs torch" in done.stderr
    assert "pip install transformers torch" in done.stderr
    assert "pip install llama-cpp-python" in done.stderr


def test_the_worked_example_is_a_backend(tmp_path, monkeypatch):
    """The class of the registry's docstring, run as it stands there."""
    example = registry.__doc__.partition("::\n")[2]
    module = f"import numpy as np\nfrom {registry.__name__} import *\n{textwrap.dedent(example)}"
    (tmp_path / "bigram.py").write_text(f"from __future__ import annotations\n{module}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BACKENDS, "bigram", Backend(target="bigram:BigramRuntime"))
    np.save(tmp_path / "table.npy", np.eye(4, dtype=np.float32)[[1, 2, 3, 0]])
    runtime = open_runtime("bigram", str(tmp_path / "table.npy"), RuntimeSettings())
    runtime.begin(batch=2, capacity=4)
    runtime.prefill(np.array([[3, 0], [0, 2]]))
    assert runtime.last_tokens() == [1, 3]
    runtime.decode(2)
    assert runtime.last_tokens() == [3, 1]
    assert runtime.logits([0, 1]).shape == (2, 4)
    runtime.close()
