"""SIGINT, SIGTERM and SIGHUP at any time, and SIGTSTP: exit codes, the terminal, files.

tests/stress/signals.py sends more of them, at random moments of every long command.
"""

import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.jobs import EDGELLM, READY, Job

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
DEADLY = [signal.SIGTERM, signal.SIGHUP]

# The entry, which says when it has done what it does first.
ENTRY = """
import sys
from edgellm.__main__ import STOP, main

STOP.arm()
print("begun", flush=True)
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


@contextmanager
def running(source, *arguments):
    """A Python process with this source; killed at the end, whatever the test found."""
    with subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def printed_after_sigterm(source):
    """Send SIGTERM once a program has begun; return what it printed then, in good order."""
    with running(source) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        printed, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (128 + signal.SIGTERM, b"")
    return printed


def ended(job, number):
    """Assert that a job ends by a signal in good order."""
    assert job.news() == f"ended {128 + number}", job.seen
    assert "Traceback" not in job.seen
    assert job.disorder == []
    ends = time.monotonic() + 10
    while job.processes() and time.monotonic() < ends:
        time.sleep(0.02)
    assert job.processes() == []


@pytest.mark.parametrize("number", DEADLY)
def test_a_chat_that_asks_gives_the_terminal_back(model, number):
    with Job("chat", model) as job:
        job.wait_for(READY)
        job.send(number)
        ended(job, number)


def test_a_chat_that_answers_gives_the_terminal_back():
    with Job("chat", "stories", "--max-tokens", 240) as job:
        job.wait_for(READY)
        job.type("Tell me a story\r")
        job.wait_for("\x1b[2K")  # the answer is redrawn
        job.send(signal.SIGTERM)
        ended(job, signal.SIGTERM)


@pytest.mark.parametrize("by", ["signal", "key"])
def test_a_stopped_chat_gives_the_terminal_back_and_takes_it_again(model, by):
    with Job("chat", model) as job:
        job.wait_for(READY)
        job.type("half a li")
        job.wait_for("half a li")
        if by == "key":
            job.type("\x1a")
        else:
            job.send(signal.SIGTSTP)
        assert job.news() == "stopped"
        assert job.disorder == []
        job.go_on()
        job.wait_for("half a li")
        assert job.disorder == ["modes", "bracketed paste"]
        job.type("\x03")
        job.wait_for(READY)
        job.type("\x04")
        assert job.news() == "ended 0"
        assert job.disorder == []


def test_a_chat_whose_terminal_hangs_up_ends(model, tmp_path):
    said = tmp_path / "said"
    words = shlex.join([*EDGELLM, "chat", model])
    with Job("-c", f"exec {words} 2>{said}", command=["sh"]) as job:
        job.wait_for(READY)
        job.hang_up()
        # the end of what is typed may come before the signal
        assert job.news() in {"ended 0", f"ended {128 + signal.SIGHUP}", f"ended -{signal.SIGHUP}"}
    assert "Traceback" not in said.read_text()


def begun(*arguments, **settings):
    """A command line in a process of its own whose first line of ours has run."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )
    assert process.stdout.readline() == b"begun\n"
    return process


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_during_imports_and_loading_is_one_line(model, delay):
    process = begun("generate", model, "-p", "-", stdin=subprocess.PIPE)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, b"interrupted\n")


def test_a_conversion_leaves_only_whole_files(tmp_path):
    process = begun("synth", "tinyllama-1.1b", tmp_path / "made")
    partial = tmp_path / "made.partial"
    while not list(partial.glob("model-layer-*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert (process.returncode, said) == (128 + signal.SIGTERM, b"")
    assert not list(partial.glob("*partial*"))
    assert not (tmp_path / "made").exists()


def test_a_hang_up_that_is_ignored_stays_ignored(model):
    process = begun(
        "generate",
        model,
        "-p",
        "-",
        "--max-tokens",
        3,
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    out, said = process.communicate(b"Once")
    assert (process.returncode, said) == (0, b"")
    assert out


# A command whose clean-up takes a while, and that says what comes of it.
SLOW = """
import sys, time
from edgellm.cli.signals.stop_signals import STOP

STOP.arm()
STOP.command_begins()
try:
    print("begun", flush=True)
    time.sleep(60)
finally:
    print("cleaning", flush=True)
    time.sleep(float(sys.argv[1]))
    print("clean", flush=True)
    STOP.command_ended()
"""


@pytest.mark.parametrize("said", [b"clean\n", b""])
def test_a_second_ctrl_c_lets_the_clean_up_end_and_a_third_does_not(said):
    seconds = 0.5 if said else 60
    with running(SLOW, str(seconds)) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"cleaning\n"
        process.send_signal(signal.SIGTERM)
        while not said and process.poll() is None:  # two that come at once are one
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
        assert process.communicate() == (said, b"")
        assert process.returncode == 128 + signal.SIGTERM


LOST = """
import time
from edgellm.cli.signals.stop_signals import STOP

class Finalized:
    def __del__(self):
        print("begun", flush=True)
        time.sleep(60)

STOP.arm()
STOP.command_begins()
try:
    Finalized()
    time.sleep(60)
finally:
    print("clean", flush=True)
"""


def test_a_signal_in_a_finalizer_is_not_lost():
    assert printed_after_sigterm(LOST) == b"clean\n"


MISSED = """
import signal, threading, time
from edgellm.cli.signals.stop_signals import STOP

STOP.arm()
STOP.command_begins()

def on_another_thread():
    time.sleep(0.1)
    signal.raise_signal(signal.SIGTERM)

threading.Thread(target=on_another_thread).start()
try:
    {wait}
finally:
    print("clean", flush=True)
"""


@pytest.mark.parametrize("wait", ["time.sleep(60)", "threading.Event().wait()", "input()"])
def test_a_signal_that_ends_no_wait_of_the_main_thread_wakes_it(wait):
    with running(MISSED.format(wait=wait)) as process:
        assert process.stdout.read() == b"clean\n"
        assert process.wait() == 128 + signal.SIGTERM


SWALLOWED = """
import signal, sys, time
from edgellm.cli.signals.stop_signals import STOP

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx._reprlib_fix":  # which MLX imports while it is imported
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
STOP.arm()
STOP.command_begins()
try:
    import mlx.core
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_while_native_code_is_imported_is_not_lost():
    with running(SWALLOWED) as process:
        assert process.communicate(timeout=30) == (b"interrupted\n", b"")


HELD = """
import threading, time
from edgellm.cli.signals import stop_signals

stop_signals.PATIENCE_SECONDS = 0.3
stop_signals.STOP.arm()
stop_signals.STOP.command_begins()
lock = threading.Lock()
lock.acquire()
try:
    print("begun", flush=True)
    time.sleep(60)
finally:
    lock.acquire()
"""


def test_a_clean_up_that_waits_for_ever_is_given_up():
    assert printed_after_sigterm(HELD) == b""


UNHURRIED = """
import time
from edgellm.cli.signals import stop_signals

stop_signals.PATIENCE_SECONDS = 0.6
stop_signals.STOP.arm()
stop_signals.STOP.command_begins()
try:
    print("begun", flush=True)
    time.sleep(60)
finally:
    with stop_signals.STOP.unhurried():
        time.sleep(0.8)
        print("saved", flush=True)
    time.sleep(60)
"""


def test_a_save_has_all_the_time_that_it_takes_and_what_follows_has_not():
    assert printed_after_sigterm(UNHURRIED) == b"saved\n"
