"""Programs on two machines: read in their own words, and waited for when one is killed."""

import json
import sys

import pytest
from support.ports import free_port

from edgellm.bench.studies.clusters.network import Network
from edgellm.bench.studies.clusters.peers.__main__ import COLUMNS, after_a_loss, measured, rows_of
from edgellm.bench.studies.clusters.peers.contenders import Contender, llama_cpp, mlx_lm, ours
from edgellm.bench.tables.text_tables import as_table
from edgellm.distributed.links.machines import read_machines
from edgellm.errors import BackendError

SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("is ready", flush=True)
connection, _ = server.accept()
connection.recv(1)
"""
CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("a word", flush=True)
connection.recv(1)
{then}
"""


class Here(Network):
    """Two machines that are both this one."""

    def inside(self, machine, command):
        """Return the command as it is."""
        return list(command)


@pytest.fixture
def here():
    return Here("here", 2)


def on_two(then):
    """A program that does something when its second machine is gone."""
    port = str(free_port())
    return Contender(
        "some",
        "way",
        timed=[sys.executable, "-c", "print(0.25)"],
        seconds=float,
        endless=[sys.executable, "-c", CLIENT.format(then=then), port],
        other=[sys.executable, "-c", SERVER, port],
        ready="is ready",
    )


def test_what_a_program_does_without_its_second_machine_is_measured(here):
    found = after_a_loss(on_two("sys.exit(3)"), here, "killed", generates=0.1)
    assert found["code"] == 3
    assert 0 <= found["ended"] < 30
    waits = after_a_loss(on_two("sys.exit(3)"), here, "stopped", generates=0.1, wait=0.3)
    assert waits == {"ended": None, "code": None}


def test_a_failure_is_an_error_in_the_programs_words(here):
    assert measured(on_two(""), here) == 0.25
    broken = Contender(
        "some", "one", timed=[sys.executable, "-c", "raise ValueError('no luck')"], seconds=float
    )
    with pytest.raises(BackendError, match="no luck"):
        measured(broken, here)


def test_ratios_are_to_the_same_program_on_one_machine():
    one = Contender("ours", "one", timed=(), seconds=float)
    two = Contender("ours", "rows", timed=(), seconds=float, other=["x"])
    peer = Contender("peer", "rows", timed=(), seconds=float, other=["x"])
    rows = rows_of(
        [one, two, peer],
        {0: [0.2, 0.3, 0.2], 1: [0.4, 0.1, 0.3]},
        {(1, "killed"): {"ended": 1.25, "code": 1}, (2, "stopped"): {"ended": None, "code": None}},
    )
    assert [row.get("ratio") for row in rows] == [None, 2.0, None]
    lines = as_table(rows, COLUMNS).splitlines()
    assert "1.2 s, exit code 1" in lines[2]
    assert lines[3].endswith("waits for 60 s and more")


def test_programs_are_given_the_same_model_threads_and_machines(tmp_path):
    places = Network("test", 2)
    found = ours(tmp_path / "model", places, tmp_path, 10**9, 24)
    found += llama_cpp(tmp_path, tmp_path / "model.gguf", places, 22, 24)
    found += mlx_lm(tmp_path / "model", places, tmp_path, 24)
    assert [(one.program, one.way) for one in found] == [
        ("edgellm", "one"),
        ("edgellm", "windows"),
        ("edgellm", "rows"),
        ("llama.cpp", "one"),
        ("llama.cpp", "layers by RPC"),
        ("mlx-lm", "one"),
        ("mlx-lm", "tensor split"),
    ]
    assert len(read_machines(tmp_path / "hosts.json")) == 2
    assert json.loads((tmp_path / "ring.json").read_text()) == [
        ["10.77.0.1:5000"],
        ["10.77.0.2:5001"],
    ]
    printed = {
        "edgellm": 'loaded\n{"seconds": [0.5, 0.125, 0.25, 0.25, 0.375, 0.75]}\n',
        "llama.cpp": 'a word before\n[{"avg_ts": 3.0, "samples_ts": [2.0, 4.0]}]\n',
        "mlx-lm": "0.125\n0.25\n0.375\n",
    }
    for one in found:
        assert one.seconds(printed[one.program]) == 0.25
        assert bool(one.other) == (one.way != "one")
