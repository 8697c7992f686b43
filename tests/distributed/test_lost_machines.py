"""A machine that dies, stops or is cut off is an error that names it, within ten seconds."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.clusters import write_hosts
from support.member_processes import IMPATIENT, MemberProcess, one_member
from support.paged import PROMPT
from support.ports import free_port
from support.processes import started
from support.relay import Relay

import edgellm
from edgellm.bench.studies.clusters.two_processes import processor_seconds
from edgellm.distributed.links import pulse
from edgellm.distributed.links.secret import new_secret
from edgellm.settings.defaults import MACHINE_WAIT

SECONDS = 10

# whether a text waits for a machine depends on how soon it was missed
pytestmark = pytest.mark.filterwarnings("ignore:machine .* is gone. waiting:RuntimeWarning")

# before this, Ctrl-C interrupts what Python itself imports, and the exit code is Python's
BEGUN = """
import runpy, sys
print("begun", file=sys.stderr, flush=True)
runpy.run_module("edgellm", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def load(tiny_folder):
    """A function that loads a tiny model on this machine and those of a file."""

    def load(hosts, **settings):
        return edgellm.load(
            tiny_folder("llama-3.2"),
            memory="500MB",
            threads=1,
            context=200,
            machines=hosts,
            **settings,
        )

    return load


def begun_text(llm):
    """A text of which one token is there."""
    stream = llm.stream(PROMPT, max_tokens=150)
    next(stream)
    return stream


def missed(stream, port):
    """The rest of a text is an error that names the machine."""
    with pytest.raises(edgellm.MachineError, match=f"127.0.0.1:{port} is gone"):
        for _ in stream:
            pass


def missed_again(llm):
    with pytest.raises(edgellm.MachineError):
        llm.generate(PROMPT)


def test_killed_in_the_middle_of_a_text(tiny_folder, tmp_path, load):
    with (
        one_member(tiny_folder("llama-3.2"), tmp_path) as (member, hosts),
        load(hosts, machine_wait=1) as llm,
    ):
        stream = begun_text(llm)
        member.end()
        begun = time.monotonic()
        missed(stream, member.port)
        missed_again(llm)
        assert time.monotonic() - begun < SECONDS


def test_what_nobody_sets_is_in_time():
    assert pulse.PATIENCE_SECONDS < MACHINE_WAIT < SECONDS


def test_stopped_or_cable_cut(tiny_folder, tmp_path, load, impatient):
    """Two clusters, so that what is waited for is waited for once."""
    secret = new_secret()
    with (
        one_member(tiny_folder("llama-3.2"), tmp_path) as (stopped, hosts),
        load(hosts, machine_wait=3) as first,
        MemberProcess(tiny_folder("llama-3.2"), secret, impatient=True) as member,
        Relay(member.port) as relay,
        load(write_hosts(tmp_path / "cable", [relay.port], secret), machine_wait=3) as second,
        ThreadPoolExecutor() as side_by_side,
    ):
        streams = [begun_text(first), begun_text(second)]
        stopped.end(signal.SIGSTOP)
        relay.cut()
        begun = time.monotonic()
        list(side_by_side.map(missed, streams, [stopped.port, relay.port]))
        assert time.monotonic() - begun < SECONDS
        list(side_by_side.map(missed_again, [first, second]))
        # the other side of the cable finds it out too, and waits for the next cluster
        ends = time.monotonic() + SECONDS
        while "is gone" not in member.said and time.monotonic() < ends:
            time.sleep(0.1)
        assert "is gone" in member.said
        relay.mend()
        with load(write_hosts(tmp_path / "next", [member.port], secret)) as again:
            assert again.generate(PROMPT, max_tokens=3).text


def test_the_command_ends_with_an_error_and_leaves_nothing(tiny_folder, tmp_path):
    folder = tiny_folder("llama-3.2")
    with one_member(folder, tmp_path) as (member, hosts):
        member.end(signal.SIGSTOP)
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", IMPATIENT, "generate", folder, "Once", "--machines", hosts],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"127.0.0.1:{member.port}" in done.stderr
        assert "hint:" in done.stderr
        assert time.monotonic() - begun < SECONDS + 5  # the interpreter's start included


@pytest.mark.parametrize("after", ["has come", "waiting at"])
def test_the_first_machine_is_interrupted(tiny_folder, tmp_path, after):
    folder = tiny_folder("llama-3.2")
    words = [sys.executable, "-c", BEGUN, "generate", folder, "Once", "--max-tokens", "100000"]
    words += ["--context-window", "64", "--machines"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with (
        one_member(folder, tmp_path) as (member, hosts),
        started([*words, hosts], **pipes) as first,
    ):
        assert first.stderr.readline() == b"begun\n"
        while after not in member.said and first.poll() is None:
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate()
        assert first.returncode in {130, -signal.SIGINT, 0}, said
        ends = time.monotonic() + SECONDS
        while "has come" in member.said and "has gone" not in member.said:
            if "is gone" in member.said or time.monotonic() > ends:
                break
            time.sleep(0.05)
        with edgellm.load(
            folder, memory="500MB", threads=1, context=64, machines=hosts
        ) as llm:  # it is free again
            assert llm.generate(PROMPT, max_tokens=3).text


def test_a_member_ends_with_ctrl_c_and_with_its_input(tiny_folder, tmp_path):
    with one_member(tiny_folder("llama-3.2"), tmp_path) as (member, _):
        member.end(signal.SIGINT)
        assert member.process.wait(60) == 130
    with one_member(tiny_folder("llama-3.2"), tmp_path / "other") as (member, _):
        member.process.stdin.close()
        assert member.process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_the_first_machine_is_late_by_20_seconds(tiny_folder, tmp_path, load):
    with one_member(tiny_folder("llama-3.2"), tmp_path) as (member, hosts):
        time.sleep(20)
        with load(hosts) as llm:
            assert llm.generate(PROMPT, max_tokens=3).text
            time.sleep(20)  # amid a conversation, too
            assert llm.generate(PROMPT, max_tokens=3).text
        assert "is gone" not in member.said


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_first_machine_may_be_late_and_nobody_works_while_waiting(tiny_folder, tmp_path, load):
    with one_member(tiny_folder("llama-3.2"), tmp_path) as (member, hosts):
        time.sleep(0.2)
        with load(hosts) as llm:
            assert llm.generate(PROMPT, max_tokens=3).text
            before, begun = processor_seconds(member.process.pid), time.monotonic()
            own = time.process_time()
            time.sleep(1.5)
            waited = time.monotonic() - begun
            assert processor_seconds(member.process.pid) - before <= 0.05 * waited
            assert time.process_time() - own <= 0.05 * waited


def test_a_machine_that_comes_back_is_used_again(tiny_folder, tmp_path, load):
    secret = new_secret()
    folder = tiny_folder("llama-3.2")
    asked = {"max_tokens": 30, "reuse_cache": True}
    with (
        MemberProcess(folder, secret, port=free_port()) as member,
        Relay(member.port) as relay,
        load(write_hosts(tmp_path, [relay.port], secret), machine_wait=0) as llm,
    ):
        whole = llm.generate(PROMPT, **asked).text
        stream = llm.stream(PROMPT, **asked)
        batch = llm.generate_batch([PROMPT, PROMPT[3:]], max_tokens=10)
        next(stream)
        relay.break_off()
        with pytest.raises(edgellm.MachineError):
            list(stream)
        # the caches of the text so far are gone with the machine, and computed again
        with pytest.warns(RuntimeWarning, match="is back.*; 1 text failed meanwhile"):
            assert llm.generate(PROMPT, **asked).text == whole
        again = llm.generate_batch([PROMPT, PROMPT[3:]], max_tokens=10)
        assert [one.text for one in again] == [one.text for one in batch]
        member.end()
        for _ in range(2):
            with pytest.raises(edgellm.MachineError):
                llm.generate(PROMPT, **asked)
        with (
            MemberProcess(folder, secret, port=member.port),
            pytest.warns(RuntimeWarning, match="is back.*; 2 texts failed meanwhile"),
        ):
            assert llm.generate(PROMPT, **asked).text == whole
