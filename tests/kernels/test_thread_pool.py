"""Threads that do steps together: called by several, at the end of a process, after a fork."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from support.kernel_steps import swiglu

from edgellm.kernels.code_cache import CodeCache
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.host import unavailable
from edgellm.kernels.kernel_engine import KernelEngine

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def test_many_threads_may_call_at_once():
    engines = [
        KernelEngine(CodeCache(host_isas()[0], folder=None), threads=number, activations="float")
        for number in (1, 2, 5)
    ]
    gate_up = np.linspace(-1, 1, 240, dtype=np.float32).reshape(3, -1)
    expected = swiglu(engines[0], gate_up)
    wrong = []

    def work(engine):
        for _ in range(50):
            if not np.array_equal(swiglu(engine, gate_up), expected):
                wrong.append(engine.threads)

    callers = [threading.Thread(target=work, args=(engine,)) for engine in engines * 2]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_calls_of_few_and_of_all_threads_follow_one_another():
    engine = KernelEngine(CodeCache(host_isas()[0], folder=None), threads=4, activations="float")
    gate_up = np.linspace(-1, 1, 240, dtype=np.float32).reshape(3, -1)
    expected = swiglu(engine, gate_up)
    for number in range(400):
        threads = 1 + number * number % 7 % 4
        assert np.array_equal(swiglu(engine, gate_up, threads=threads), expected)


PROGRAM = """
import os, sys, threading
import numpy as np
from edgellm.kernels.codegen.abi import SWIGLU
from edgellm.kernels.kernel_engine import KernelEngine, make_step, step_array
from edgellm.kernels.codegen.isa import host_isas
from edgellm.kernels.code_cache import CodeCache

def swiglu(engine):
    gate_up, out = np.ones((1, 80), np.float32), np.zeros((1, 40), np.float32)
    addresses = {"gate_up": gate_up.ctypes.data, "out": out.ctypes.data}
    step = make_step(engine.kernel("swiglu"), SWIGLU, **addresses, inner=40)
    with engine.lock:
        engine.run(step_array([step]), 1)
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
    code = (
        "import gc; swiglu(engine); print(threading.active_count())\n"
        "del engine; gc.collect(); print(threading.active_count())"
    )
    assert outcome(code) == (0, "3\n1\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_starts_its_own_threads():
    code = (
        "import warnings; warnings.simplefilter('ignore'); swiglu(engine); child = os.fork()\n"
        "value = round(swiglu(engine), 3)\n"
        "if child == 0: os._exit(0 if value == 0.731 else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert outcome(code) == (0, "0\n")
