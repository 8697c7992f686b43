"""Server and clients as processes: one is killed, some are interrupted, and nothing stays."""

import json
import os
import signal
import stat
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.federations import WORDS, write_records
from support.lora_files import products
from support.training import in_four_bits

pytest.importorskip("flwr", reason="Flower is not installed")

from edgellm.bench.studies.federation.processes import Process, federate
from edgellm.cli.app import main
from edgellm.federation.saved_rounds import FILE

pytestmark = pytest.mark.slow

LESSON = ["--rank", "2", "--max-tokens", "64", "--batch", "2", "--rate", "1e-2", "--dropout", "0"]
DEVICE = ["--memory", "500MB", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(in_four_bits(tmp_path_factory.mktemp("model")))


@pytest.fixture
def data(tmp_path):
    return {
        number: (
            write_records(tmp_path / f"{number}.jsonl", WORDS[number * 2 : number * 2 + 4]),
            write_records(tmp_path / f"{number}-others.jsonl", WORDS[:2]),
        )
        for number in range(4)
    }


def test_four_clients_of_which_one_is_killed(folder, data, tmp_path):
    outcome = federate(
        folder,
        tmp_path / "out",
        data,
        server=[*LESSON, "--rounds", "3"],
        client=DEVICE,
        killed_after=1,
    )
    assert outcome.code == 0, outcome.said
    assert outcome.clients == {"client-1": 0, "client-2": 0, "client-3": 0, "client-4": -9}
    assert [len(one["clients"]) for one in outcome.rounds] in ([4, 3, 3], [4, 4, 3])
    assert "client-4 is gone: the mean is that of the others" in outcome.said
    for one in outcome.rounds:
        assert one["sent"] > 0
        assert one["received"] > 0
        assert one["memory"] > 0
        assert all(told["memory"] > 0 for told in one["clients"].values())
    assert any(change.any() for change in products(tmp_path / "out").values())
    assert not (tmp_path / "out.invitations").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".lock")]


def test_an_interrupted_server_goes_on_with_the_clients_that_wait(folder, data, tmp_path):
    out = tmp_path / "out"
    words = ["federate", "server", folder, str(out), "--clients", "2", *LESSON]
    invitations = tmp_path / "out.invitations"
    with ExitStack() as stack:
        first = stack.enter_context(Process([*words, "--rounds", "500", "--port", "0"]))
        first.wait_for("client-2.invitation")
        port = first.said.partition("listening at 127.0.0.1:")[2].partition(";")[0]
        files = sorted(invitations.iterdir())
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert stat.S_IMODE(invitations.stat().st_mode) == 0o700
        clients = [
            stack.enter_context(Process(client_words(folder, data, invitations, number)))
            for number in (1, 2)
        ]
        first.wait_for("round 2 of")
        assert children_of(first.running.pid) == []
        # a client's is what renders chat templates
        children = [child for one in clients for child in children_of(one.running.pid)]
        first.running.send_signal(signal.SIGINT)
        assert first.ended() == 130
        done = state_of(out)
        assert done >= 2
        again = [*words, "--rounds", str(done + 1), "--port", port, "--resume", "--json"]
        second = stack.enter_context(Process(again))
        assert second.ended() == 0, second.said
        assert [one.ended() for one in clients] == [0, 0]
        assert not [child for child in children if is_running(child)]
        rounds = json.loads(second.printed)["rounds"]
        assert [one["round"] for one in rounds] == list(range(1, done + 2))
        assert len(rounds[-1]["clients"]) == 2


def test_an_interrupted_client_is_gone_at_once(folder, data, tmp_path):
    invitations = tmp_path / "out.invitations"
    with ExitStack() as stack:
        words = ["federate", "server", folder, str(tmp_path / "out"), "--clients", "2", *LESSON]
        server = stack.enter_context(Process([*words, "--rounds", "500", "--port", "0"]))
        server.wait_for("client-2.invitation")
        clients = [
            stack.enter_context(
                Process([*client_words(folder, data, invitations, number), "--wait", "1"])
            )
            for number in (1, 2)
        ]
        server.wait_for("round 1 of")
        clients[1].running.send_signal(signal.SIGINT)
        assert clients[1].ended() == 130
        begun = time.monotonic()
        server.wait_for(": 1 client;")
        assert time.monotonic() - begun < 15
        server.running.send_signal(signal.SIGTERM)
        assert server.ended() == 128 + signal.SIGTERM
        assert clients[0].ended() == 1
        assert "joins the next round" in " ".join(clients[0].said.split())


@pytest.mark.parametrize("address", ["0.0.0.0", "8.8.8.8", "example.org"])
def test_public_addresses_are_refused(address, tmp_path, capsys):
    words = ["federate", "server", "stories", str(tmp_path / "out"), "--clients", "1"]
    assert main([*words, "--rounds", "1", "--address", address]) == 2
    assert "private address" in capsys.readouterr().err or address == "example.org"


def client_words(folder, data, invitations, number):
    invitation = invitations / f"client-{number}.invitation"
    words = ["federate", "client", folder, str(data[number][0]), *DEVICE]
    return [*words, "--invitation", str(invitation)]


def children_of(pid):
    """The processes that a process has started; of Linux."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def state_of(out):
    """How many rounds a folder has had."""
    from edgellm.checkpoint.safetensors_file import read_header

    return int(read_header(out / FILE)[1]["round"])
