"""The kernels' code: it compiles for every instruction set, is kept on disk, and runs in threads that end."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgellm.errors import BackendError, ConfigError
from edgellm.kernels import host
from edgellm.kernels.catalog import EMITTERS, emitted
from edgellm.kernels.code_cache import CodeCache, compiled, fingerprint, target_machine
from edgellm.kernels.codegen.isa import ISAS, host_isas, isa_named
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.kernel_engine import KernelEngine, step_array

pytestmark = pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable()))

CODED = [(WeightFormat(bits, group, "bf16"),) for bits, group in ((4, 32), (4, 128), (8, 64))]
ODD = [
    (WeightFormat(3, 32, "f16"),),
    (WeightFormat(5, 64, "f32"),),
    (WeightFormat(6, 128, "bf16"),),
    (WeightFormat(0, 0, "f16"),),
]
ARGUMENTS = {
    "norm": [("f16",), ("bf16",), ("f32",)],
    "rope": [("plain", "f32"), ("f16", "f16"), ("plain", "q8"), ("bf16", "q4")],
    "attention": [("f32",), ("f16",), ("q8",), ("q4",)],
    "bias": [("bf16",)],
    "quantize": [(32, "split"), (64, "plain"), (128, "tile")],
    "pack": [("words",), ("bf16",)],
    "int8_matvec": CODED,
    "int8_few": CODED,
    "int8_matmul": CODED,
    "float_matvec": ODD,
    "float_few": ODD,
    "float_matmul": ODD,
    "tile_matvec": CODED,
    "tile_matmul": CODED + ODD,
}


def needed(isa, kernel):
    return not (kernel.startswith("int8") and isa.dot is None) and not (
        kernel.startswith("tile") and not isa.tiles
    )


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_every_kernel_compiles_for_every_instruction_set(isa):
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = target_machine(isa)
    for kernel in EMITTERS:
        for arguments in ARGUMENTS.get(kernel, [()]) if needed(isa, kernel) else []:
            assert (
                compiled(emitted(kernel, isa, *arguments), machine)[:4] == b"\x7fELF"
                or sys.platform == "darwin"
            )


@pytest.mark.parametrize(
    ("isa", "kernel", "instruction"),
    [
        ("amx", "tile_matmul", "tdpbf16ps"),
        ("amx", "tile_matvec", "tdpbusd"),
        ("avx512-vnni", "int8_matvec", "vpdpbusd"),
        ("avx-vnni", "int8_matvec", "vpdpbusd"),
        ("avx2", "int8_matvec", "vpmaddubsw"),
        ("arm64-dot", "int8_matvec", "sdot"),
    ],
)
def test_products_use_the_instruction_that_they_are_made_for(isa, kernel, instruction):
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(emitted(kernel, ISAS[isa], WeightFormat(4, 64, "f16")))
    assert instruction in target_machine(ISAS[isa]).emit_assembly(module)


def swiglu(engine, tokens=3, width=40):
    both = np.linspace(-1, 1, tokens * 2 * width, dtype=np.float32).reshape(tokens, -1)
    out = np.empty((tokens, width), np.float32)
    with engine.lock:
        engine.run(
            step_array([(engine.kernel("swiglu"), both.ctypes.data, out.ctypes.data, width)]),
            tokens,
        )
    return out


def kernel_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.bin"))


def test_compiled_code_is_kept_and_loaded(tmp_path):
    first, second = (CodeCache(host_isas()[0], folder=tmp_path / "kept") for _ in range(2))
    expected = swiglu(KernelEngine(first, threads=2, activations="float"))
    assert (first.compiled, first.loaded) == (3, 0)
    assert np.array_equal(swiglu(KernelEngine(second, threads=2, activations="float")), expected)
    assert (second.compiled, second.loaded) == (0, 3)


def test_the_code_on_disk_is_that_of_these_emitters(tmp_path):
    (tmp_path / "attention").mkdir()
    emitter = tmp_path / "attention" / "merge.py"
    emitter.write_text("first")
    first = fingerprint(tmp_path)
    emitter.write_text("second")
    fingerprint.cache_clear()
    assert fingerprint(tmp_path) != first


@pytest.mark.parametrize("damage", [b"", b"edgellm kernel 1\nnot what it was", None])
def test_damaged_code_is_compiled_anew(tmp_path, damage):
    expected = swiglu(
        KernelEngine(CodeCache(host_isas()[0], folder=tmp_path), threads=1, activations="float")
    )
    for path in kernel_files(tmp_path):
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]) if damage is None else damage)
    code = CodeCache(host_isas()[0], folder=tmp_path)
    assert np.array_equal(swiglu(KernelEngine(code, threads=1, activations="float")), expected)
    assert code.loaded == 0
    assert all(len(path.read_bytes()) > 100 for path in kernel_files(tmp_path))


def test_a_folder_that_cannot_be_written_costs_only_compiling(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    swiglu(
        KernelEngine(
            CodeCache(host_isas()[0], folder=blocked / "kernels"), threads=1, activations="float"
        )
    )
    assert blocked.read_text() == ""


def test_an_instruction_set_of_another_machine_is_refused():
    here = {isa.name for isa in host_isas()}
    with pytest.raises(ConfigError, match="does not run"):
        isa_named(next(name for name in ISAS if name not in here))


def test_forms_without_kernels_are_refused():
    for bits, group, kind in ((7, 64, "f16"), (4, 16, "f16"), (4, 64, "u8"), (0, 64, "f16")):
        with pytest.raises(BackendError, match="no kernels"):
            WeightFormat(bits, group, kind)


def test_the_engine_is_one_for_equal_settings():
    assert host.kernel_engine(threads=2) is host.kernel_engine(threads=2)
    assert host.kernel_engine(threads=2) is not host.kernel_engine(threads=1)
    described = host.describe()
    assert (described.isa, described.reason) == (host_isas()[0].name, None)


def test_many_threads_may_call_at_once():
    engines = [
        KernelEngine(CodeCache(host_isas()[0], folder=None), threads=number, activations="float")
        for number in (1, 2, 5)
    ]
    expected = swiglu(engines[0])
    wrong = []

    def work(engine):
        for _ in range(50):
            if not np.array_equal(swiglu(engine), expected):
                wrong.append(engine.threads)

    callers = [threading.Thread(target=work, args=(engine,)) for engine in engines * 2]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


PROGRAM = """
import os, sys, threading
import numpy as np
from edgellm.kernels.kernel_engine import KernelEngine, step_array
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.code_cache import CodeCache

def swiglu(engine):
    both, out = np.ones((1, 80), np.float32), np.zeros((1, 40), np.float32)
    with engine.lock:
        engine.run(step_array([(engine.kernel("swiglu"), both.ctypes.data, out.ctypes.data, 40)]), 1)
    return float(out[0, 0])

engine = KernelEngine(CodeCache(host_isas()[0], folder=None), threads=3, activations="float")
"""


def outcome(code: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_process_ends_quietly_with_threads_awake_asleep_or_busy():
    assert outcome("print(round(swiglu(engine), 3))") == (0, "0.731\n")
    assert outcome("import time; swiglu(engine); time.sleep(0.1)") == (0, "")
    busy = "def busy():\n    while True: swiglu(engine)\n"
    assert outcome(busy + "threading.Thread(target=busy, daemon=True).start(); swiglu(engine)") == (
        0,
        "",
    )


def test_threads_end_with_their_pool():
    code = "swiglu(engine); print(threading.active_count()); del engine; import gc; gc.collect(); print(threading.active_count())"
    assert outcome(code) == (0, "3\n1\n")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
def test_a_forked_process_starts_its_own_threads():
    code = (
        "import warnings; warnings.simplefilter('ignore'); swiglu(engine); child = os.fork()\n"
        "value = round(swiglu(engine), 3)\n"
        "if child == 0: os._exit(0 if value == 0.731 else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert outcome(code) == (0, "0\n")
