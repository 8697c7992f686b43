"""Compiled code is kept on disk, and made anew where it is damaged or its emitters changed."""

from pathlib import Path

import numpy as np
import pytest
from support.kernel_steps import swiglu

from edgellm.kernels.code_cache import CodeCache, fingerprint
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import KernelEngine

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def run_swiglu(code: CodeCache) -> np.ndarray:
    gate_up = np.linspace(-1, 1, 240, dtype=np.float32).reshape(3, -1)
    return swiglu(KernelEngine(code, threads=2, activations="float"), gate_up)


def kernel_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bin"))


def test_compiled_code_is_kept_and_loaded(tmp_path):
    first, second = (CodeCache(host_isas()[0], folder=tmp_path / "new") for _ in range(2))
    expected = run_swiglu(first)
    assert (first.compiled, first.loaded) == (3, 0)
    assert np.array_equal(run_swiglu(second), expected)
    assert (second.compiled, second.loaded) == (0, 3)


def test_the_code_on_disk_is_that_of_these_emitters(tmp_path):
    (tmp_path / "attention").mkdir()
    emitter = tmp_path / "attention" / "merge.py"
    emitter.write_text("first")
    first = fingerprint(tmp_path)
    emitter.write_text("second")
    fingerprint.cache_clear()
    assert fingerprint(tmp_path) != first


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: b"edgellm kernel 1\nnot what it was",
        lambda stored: stored[:-1] + bytes([stored[-1] ^ 1]),
    ],
    ids=["empty", "other bytes", "one bit"],
)
def test_damaged_code_is_compiled_anew(tmp_path, damage):
    expected = run_swiglu(CodeCache(host_isas()[0], folder=tmp_path))
    for path in kernel_files(tmp_path):
        stored = path.read_bytes()
        path.write_bytes(damage(stored))
    code = CodeCache(host_isas()[0], folder=tmp_path)
    assert np.array_equal(run_swiglu(code), expected)
    assert code.loaded == 0
    assert all(len(path.read_bytes()) > 100 for path in kernel_files(tmp_path))


def test_a_folder_that_cannot_be_written_costs_only_compiling(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    run_swiglu(CodeCache(host_isas()[0], folder=blocked / "kernels"))
    assert blocked.read_text() == ""
