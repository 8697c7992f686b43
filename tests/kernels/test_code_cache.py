"""Compiled code is kept on disk, and made again where it is damaged or its emitters changed."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.disk_limits import no_umask, open_to_others
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


def shared_file(folder: Path) -> None:
    kernel_files(folder)[0].chmod(0o620)


def linked_file(folder: Path) -> None:
    path = kernel_files(folder)[0]
    elsewhere = folder.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def linked_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere", target_is_directory=True)


def pipe(folder: Path) -> None:
    path = kernel_files(folder)[0]
    path.unlink()
    os.mkfifo(path)


def another_users_file(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(kernel_files(folder)[0], 12345, -1)


@pytest.mark.parametrize(
    ("change", "said", "loaded"),
    [
        (shared_file, "others may write to", 2),
        (lambda folder: folder.chmod(0o770), "others may write to", 0),
        (lambda folder: folder.parent.chmod(0o702), "others may write to", 0),
        (linked_file, "is a link", 2),
        (linked_folder, "is a link", 0),
        (another_users_file, "belongs to another user", 2),
    ],
)
def test_code_that_others_may_have_written_is_not_loaded_which_is_said_once(
    tmp_path, change, said, loaded
):
    folder = tmp_path / "edgellm" / "kernels"
    expected = run_swiglu(CodeCache(host_isas()[0], folder=folder))
    change(folder)
    code = CodeCache(host_isas()[0], folder=folder)
    with pytest.warns(RuntimeWarning, match=said) as warned:
        assert np.array_equal(run_swiglu(code), expected)
    assert len(warned) == 1
    assert code.loaded == loaded
    if not folder.is_symlink():
        again = CodeCache(host_isas()[0], folder=folder)
        run_swiglu(again)
        assert again.loaded == 3, "what was found is mended"


def test_what_is_no_file_is_compiled_anew(tmp_path):
    expected = run_swiglu(CodeCache(host_isas()[0], folder=tmp_path))
    pipe(tmp_path)
    code = CodeCache(host_isas()[0], folder=tmp_path)
    assert np.array_equal(run_swiglu(code), expected)
    assert code.loaded == 2


def test_code_of_another_kernel_is_not_taken_for_this_one(tmp_path):
    expected = run_swiglu(CodeCache(host_isas()[0], folder=tmp_path))
    first, second, _ = kernel_files(tmp_path)
    first.write_bytes(second.read_bytes())
    code = CodeCache(host_isas()[0], folder=tmp_path)
    assert np.array_equal(run_swiglu(code), expected)
    assert code.loaded == 2


def test_folders_and_files_are_for_the_owner_alone_whatever_the_umask(tmp_path):
    with no_umask():
        run_swiglu(CodeCache(host_isas()[0], folder=tmp_path / "cache" / "edgellm" / "kernels"))
    assert len(kernel_files(tmp_path / "cache" / "edgellm" / "kernels")) == 3
    assert open_to_others(tmp_path) == []
