"""``edgellm cluster``: machines are started by ssh, asked for, used and ended."""

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from support.clusters import members
from support.member_processes import MemberProcess, one_member
from support.ports import free_ports
from support.processes import started

from edgellm.cli.app import main
from edgellm.cli.cluster_commands.join import mark_here, wait_for_end
from edgellm.distributed import start
from edgellm.distributed.links.machines import read_machines, secret_file
from edgellm.distributed.links.secret import new_secret
from edgellm.distributed.parts import digests
from edgellm.errors import MachineError
from edgellm.settings import LoadSettings

EDGELLM = shlex.join([sys.executable, "-m", "edgellm"])

SSH = """#!/bin/sh
# ssh -o BatchMode=yes ... -- HOST COMMAND, on this machine
test "$1 $2" = "-o BatchMode=yes" || exit 9
until test "$1" = --; do shift; done
exec sh -c "exec $3"
"""


@pytest.fixture
def folder(tiny_folder):
    return tiny_folder("llama-3.2")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """An ssh that runs its commands on this machine."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "ssh").write_text(SSH)
    (place / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


@pytest.fixture
def edgellm(capfd):
    """A function that runs a command here; returns its exit code, and what was written to both."""

    def edgellm(*words):
        capfd.readouterr()
        code = main([str(word) for word in words])
        return code, *capfd.readouterr()

    return edgellm


def hosts_of(path, ports):
    machines = [{"ssh": "first", "ips": ["127.0.0.1"]}]
    machines += [
        {"ssh": f"other{port}", "ips": [f"127.0.0.1:{port}"], "memory": "500MB"} for port in ports
    ]
    path.write_text(json.dumps(machines))
    return path


def test_start_status_generate_and_the_end(folder, tmp_path, ssh, edgellm):
    ports = free_ports(2)
    hosts = hosts_of(tmp_path / "hosts.json", ports)
    words = [sys.executable, "-m", "edgellm", "cluster", "start", str(folder), str(hosts)]
    words += ["--edgellm", EDGELLM]
    with started(words, stderr=subprocess.PIPE, text=True) as cluster:
        said = ""
        expected = ["all are there"]
        expected += [f"other{port}: {folder}: waiting at 127.0.0.1:{port}" for port in ports]
        while not all(words in said for words in expected):
            line = cluster.stderr.readline()
            assert line, said
            said += line
        _, status, _ = edgellm("cluster", "status", hosts, "--json")
        facts = json.loads(status)["machines"]
        assert {machine["busy"] for machine in facts.values()} == {False}
        assert {machine["budget"] for machine in facts.values()} == {500_000_000}
        assert set(facts) == {f"other{port}" for port in ports}
        asked = ["generate", folder, "Once upon a time", "--max-tokens", "12"]
        _, one, _ = edgellm(*asked)
        _, many, _ = edgellm(*asked, "--machines", hosts)
        assert many == one != ""
        assert "waits; 500 MB" in edgellm("cluster", "status", hosts)[1]
        cluster.send_signal(signal.SIGINT)
        cluster.communicate()
        assert cluster.returncode == 130
    for port in ports:  # nobody listens any more
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))
    code, _, said = edgellm("cluster", "status", hosts)
    assert code == 1
    assert "2 of 2 machines cannot be used: " + ", ".join(f"other{port}" for port in ports) in said


def test_a_machine_that_cannot_start_is_named(folder, tmp_path, ssh, edgellm):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hosts = hosts_of(tmp_path / "hosts.json", [port])
        code, _, said = edgellm("cluster", "start", folder, hosts, "--edgellm", EDGELLM)
    assert code == 1
    listens = f"other{port}: error: this machine cannot listen at 127.0.0.1:{port}"
    assert "--edgellm names the command" in said
    ended = f"edgellm has ended on machine other{port}, with exit code 1"
    assert said.index(listens) < said.index(ended)


def test_another_version_and_another_secret_are_said(folder, tmp_path, monkeypatch, edgellm):
    with members(folder, tmp_path, ["500MB"]) as hosts:
        machine, secret = read_machines(hosts)[1], secret_file(hosts).read_text().strip()
        assert edgellm("cluster", "status", hosts)[0] == 0
        for module in (digests, start):
            monkeypatch.setattr(module, "versions", lambda: {"edgellm": "0.0.9", "mlx": "0"})
        code, table, said = edgellm("cluster", "status", hosts)
        assert code == 1
        assert f"machine {machine.name} has edgellm" in table
        assert "and this one has 0.0.9" in table
        assert f"1 of 1 machines cannot be used: {machine.name}" in said
        with (
            start.StartedMachines([machine], "model", secret, edgellm="", say=print) as begun,
            pytest.raises(MachineError, match=r"this one has 0\.0\.9"),
        ):
            begun.wait_until_ready(20)
        secret_file(hosts).write_text(f"{new_secret()}\n")
        code, table, said = edgellm("cluster", "status", hosts)
        assert code == 1
        assert f"machine {machine.name} has another secret" in table


def test_machines_started_by_hand_are_told_how(folder, tmp_path, edgellm):
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([["127.0.0.1"], {"ips": ["127.0.0.1:1"], "memory": "8GB"}]))
    code, _, said = edgellm("cluster", "start", folder, hosts, "--wait", "0")
    assert code == 1
    words = f"cluster join {folder} --secret hosts.json.secret --address 127.0.0.1 --port 1"
    assert f"edgellm {words} --memory 8GB" in said
    assert "cannot be reached" in said
    code, _, said = edgellm("cluster", "start", folder, hosts, "--wait", "-1")
    assert code == 2
    assert "--wait" in said


def test_a_machine_that_is_started_by_hand_may_take_as_long_as_it_takes(folder, tmp_path):
    [port] = free_ports(1)
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([["127.0.0.1"], {"ips": [f"127.0.0.1:{port}"]}]))
    words = [sys.executable, "-m", "edgellm", "cluster", "start", str(folder), str(hosts)]
    with started(words, stderr=subprocess.PIPE, text=True) as cluster:
        assert "cluster join" in cluster.stderr.readline()
        refused = f"waiting: machine 127.0.0.1:{port} cannot be reached"
        assert cluster.stderr.readline().startswith(refused)
        # one that has copied the secret of an earlier start is told apart from one that is missing
        with MemberProcess(folder, new_secret(), port=port):
            assert "has another secret" in cluster.stderr.readline()
        with MemberProcess(folder, secret_file(hosts).read_text().strip(), port=port):
            while "all are there" not in (line := cluster.stderr.readline()):
                assert line.startswith("waiting: machine")


def test_plan_says_what_each_machine_holds(folder, tmp_path, edgellm):
    with one_member(folder, tmp_path) as (member, hosts):
        asked = ("plan", folder, "--machines", hosts, "--memory", "500MB")
        plan = json.loads(edgellm(*asked, "--json")[1])
        first, second = plan["machines"]
        assert sorted(first["layers"] + second["layers"]) == [0, 1, 2, 3]
        assert second["name"] == f"127.0.0.1:{member.port}"
        assert second["streamed_bytes"] == 0
        assert plan["seconds_per_token"] > plan["link_seconds"] > 0
        assert plan["split"] == "windows"
        assert set(plan["kinds"]) == {"windows", "rows"}
        _, shown, _ = edgellm(*asked, "--split", "rows")
        assert "50% of 4 layers" in shown
        assert "this machine alone" in shown
        assert plan["alone"]["seconds_per_token"] == plan["alone"]["arithmetic_seconds"] > 0
        assert "rows: it was asked for" in shown
        while "has gone" not in member.said:
            time.sleep(0.05)


def test_a_secret_that_nobody_can_be_asked_for(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["cluster", "join", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "the secret is missing" in error
    assert "hint: --secret hosts.json.secret" in error


def test_a_file_of_machines_that_is_not_there_is_named(folder, tmp_path, capsys):
    hosts = str(tmp_path / "hosts.json")
    for words in (
        ["cluster", "status", hosts],
        ["generate", str(folder), "x", "--machines", hosts],
    ):
        assert main(words) != 0
        assert f"{hosts} cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["0.0.0.0", "8.8.8.8", "::", "::ffff:0.0.0.0"])
def test_join_listens_at_no_public_address(folder, tmp_path, capsys, address):
    secret = tmp_path / "secret"
    secret.write_text("s" * 43)
    secret.chmod(0o600)
    words = ["cluster", "join", str(folder), "--secret", str(secret), "--address", address]
    assert main(words) == 2
    assert "hint:" in capsys.readouterr().err


def test_a_second_one_on_this_machine_is_told_that_each_needs_memory(tmp_path, monkeypatch):
    for place in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(place, str(tmp_path))
    end_first = mark_here(LoadSettings())
    mark_here(LoadSettings(memory="1GB"))()
    with pytest.warns(UserWarning, match="a --memory of its own"):
        mark_here(LoadSettings())()
    end_first()
    mark_here(LoadSettings(memory="auto"))()


def test_the_end_of_an_input_and_silence_after_it_spoke():
    reading, writing = os.pipe()
    silent = threading.Thread(target=wait_for_end, args=(reading, 0.01))
    silent.start()
    silent.join(0.1)
    assert silent.is_alive()  # nothing came yet: a person may have typed the secret
    os.write(writing, b"\n")
    silent.join(20)
    assert not silent.is_alive()
    os.close(writing)
    wait_for_end(reading, 60.0)
    os.close(reading)
