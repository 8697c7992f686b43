"""Workers from the bench's side, and their protocol from both."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.jobs import marked

from edgellm.bench.worker.process import WorkerEndedError, WorkerProcess
from edgellm.errors import BackendError

ECHO = """
from edgellm.bench.worker.protocol import orders, report_errors, stdout_channel

send = stdout_channel()
print("what a library prints is no message")
for order in orders():
    with report_errors(send):
        if order["raise"]:
            kinds = {"ValueError": ValueError, "MemoryError": MemoryError}
            raise kinds[order["raise"]](order["say"])
        send({"said": order["say"]})
"""


@pytest.fixture
def start():
    """A function that starts Python on some code as a worker; ended after the test."""
    workers = []

    def start_code(code, timeout=60.0, **options):
        command = [sys.executable, "-c", code]
        workers.append(WorkerProcess(command=command, timeout=timeout, **options))
        return workers[-1]

    yield start_code
    for worker in workers:
        worker.kill()


def test_a_message_is_answered_and_an_error_is_raised_without_an_end(start):
    worker = start(ECHO)
    worker.send({"say": "one", "raise": None})
    assert worker.receive() == {"said": "one"}
    worker.send({"say": "two\n  lines", "raise": "ValueError"})
    with pytest.raises(BackendError, match=r"^ValueError: two lines$") as raised:
        worker.receive()
    assert not isinstance(raised.value, WorkerEndedError)
    worker.send({"say": "", "raise": "MemoryError"})
    with pytest.raises(BackendError, match="not enough memory"):
        worker.receive()
    worker.send({"say": "three", "raise": None})
    assert worker.receive() == {"said": "three"}
    worker.close()


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        ("import sys; sys.exit('no luck')", "it ended with status 1: no luck", None),
        ("import os; os.abort()", "it was ended by SIGABRT", "try it"),
        pytest.param(
            "import os; os.kill(os.getpid(), 40)",
            "it was ended by signal 40",
            "try it",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="has real-time signals"),
        ),
        ("import os; os.kill(os.getpid(), 9)", "because memory ran out", "try it"),
        ("import sys; sys.exit(137)", "because memory ran out", "try it"),
    ],
)
def test_a_worker_that_ends_says_why(start, code, reason, hint):
    worker = start(code, crash_hint="try it")
    worker.send({"lost": True})
    with pytest.raises(WorkerEndedError, match=reason) as raised:
        worker.receive()
    assert raised.value.hint == hint


@pytest.mark.parametrize("half", ['{"seconds": [1.0, 2', "{", '{"a": "\\xc3'])
def test_a_worker_that_dies_in_the_middle_of_a_message_says_why(start, half):
    code = f"import sys; sys.stdout.write({half!r}); sys.stdout.flush(); sys.exit('no luck')"
    with pytest.raises(WorkerEndedError, match="it ended with status 1: no luck"):
        start(code).receive()


@pytest.mark.parametrize(
    "line", ['{"seconds": NaN}', '{"seconds": 1e999}', "{no json}", "{" * 9999]
)
def test_a_figure_that_is_no_number_is_no_message(start, line):
    worker = start(f"print({line!r}, flush=True); input()")
    with pytest.raises(BackendError, match="it sent something that is not a message"):
        worker.receive()


def test_a_silent_worker_is_ended(start):
    worker = start("import time; time.sleep(600)", timeout=0.2)
    with pytest.raises(WorkerEndedError, match=r"said nothing for 0\.2 seconds"):
        worker.receive()


def test_without_a_timeout_a_message_is_waited_for(start):
    worker = start("import time; time.sleep(0.3); print('{}')", timeout=None)
    assert worker.receive() == {}


BUSY = """
import time
from edgellm.bench.worker.protocol import run_worker

def serve(order, orders, send):
    send({"busy": True})
    time.sleep(600)

run_worker(serve)
"""

BENCH = """
import subprocess, sys
from edgellm.bench.worker.process import WorkerProcess

worker = WorkerProcess(command=[sys.executable, "-c", sys.argv[1]], timeout=60)
worker.send({})
worker.receive()
print("busy", flush=True)
sys.stdin.read()
"""


def test_an_exception_ends_a_busy_worker_at_once(start):
    worker = start(BUSY)
    worker.send({})
    assert worker.receive() == {"busy": True}
    begun = time.monotonic()
    with suppress(KeyboardInterrupt), worker:
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 5


# A process of the bench's that stops it once there is a worker, and a bench in which a long PATH
# makes the start of one slow.
WATCHER = """
import os, signal
bench = os.getppid()
print("watching", flush=True)
while True:
    with open(f"/proc/{bench}/task/{bench}/children") as children:
        if len(children.read().split()) > 1:
            break
os.kill(bench, signal.SIGTERM)
"""

STARTING = """
import os, subprocess, sys
from edgellm.bench.worker.process import WorkerProcess
from edgellm.cli.signals.stop_signals import STOP

STOP.arm()
STOP.command_begins()
os.environ["PATH"] = "/none:" * 20_000 + os.environ["PATH"]
watcher = [sys.executable, "-c", sys.argv[1]]
watching = subprocess.Popen(watcher, env={}, stdout=subprocess.PIPE)
watching.stdout.readline()
try:
    with WorkerProcess(command=["sleep", "600"], timeout=60):
        sys.stdin.read()
finally:
    print("clean", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_signal_while_a_worker_starts_leaves_none():
    mark = f"starting-{os.getpid()}-{time.monotonic_ns()}"
    bench = subprocess.Popen(
        [sys.executable, "-c", STARTING, WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"EDGELLM_TEST_JOB": mark},
    )
    with bench:
        assert bench.stdout.readline() == b"clean\n"
        left = marked(mark)
        for pid in set(left) - {bench.pid}:
            os.kill(pid, signal.SIGKILL)
        assert left == [bench.pid]
        bench.stdin.close()
        assert bench.wait() == 128 + signal.SIGTERM


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_busy_worker_ends_when_the_bench_is_killed():
    mark = f"worker-{os.getpid()}-{time.monotonic_ns()}"
    bench = subprocess.Popen(
        [sys.executable, "-c", BENCH, BUSY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"EDGELLM_TEST_JOB": mark},
    )
    with bench:
        assert bench.stdout.readline() == b"busy\n"
        assert len(marked(mark)) == 2
        bench.send_signal(signal.SIGKILL)
        bench.wait()
        ends = time.monotonic() + 20
        while marked(mark) and time.monotonic() < ends:
            time.sleep(0.05)
        assert marked(mark) == []
