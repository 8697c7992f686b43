"""Flower carries tasks and answers: who gets in, who fails, and what arrives."""

import dataclasses
import datetime
import functools
import http.client
import json
import ssl
import threading
import time

import numpy as np
import pytest
from support.federations import lesson
from support.lora_files import products
from support.training import LORA

pytest.importorskip("flwr", reason="Flower is not installed")
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.links.addresses import Address, listening_socket
from edgellm.errors import MachineError, NotFiniteError
from edgellm.federation.fleet import Rounds
from edgellm.federation.flower import supernode
from edgellm.federation.flower.certificates import CERTIFICATE, keys_in, make_keys
from edgellm.federation.flower.superlink import SuperLink
from edgellm.federation.flower.supernode import SuperNode
from edgellm.federation.invitations import Invitation, read_invitation
from edgellm.federation.rounds import Federation
from edgellm.federation.task import Answer, Task

pytestmark = pytest.mark.filterwarnings("default")  # of Flower and what it needs


def task(kind="learn", numbers=(1.0, 2.0)):
    row = np.array(numbers, np.float32)
    return Task(kind=kind, round=1, rounds=2, lesson={"a": 1}, shapes="some", numbers=row)


class Client(threading.Thread):
    """A client in a thread, whose answers are made by a function."""

    def __init__(self, invitation, make=None, wait=5.0):
        super().__init__(daemon=True)
        self.error = None
        self.tasks, self.said = [], []
        self._make = make or (lambda asked: asked.numbers + 1)
        self._node = SuperNode(invitation, server=None, wait=wait, say=self.said.append)
        self.start()

    def run(self):
        try:
            self._node.work(self._answer)
        except (Exception, SystemExit) as error:  # told by the test
            self.error = error

    def _answer(self, asked):
        self.tasks.append(asked)
        numbers = self._make(asked)
        return Answer(numbers=numbers, weight=2.0, seconds=0.5, memory=9, figures={"loss": 1.5})


@pytest.fixture
def opened(tmp_path):
    """A door with two invited clients, and their invitations."""
    listening = listening_socket(Address("127.0.0.1", 0), 8)
    address = Address("127.0.0.1", listening.getsockname()[1])
    keys = make_keys(tmp_path / "keys", address, 2)
    with SuperLink(listening, keys) as fleet:
        yield fleet, [read_invitation(path) for path in keys.invitations], keys, address


def wait_for(fleet, names):
    ends = time.monotonic() + 60
    while list(fleet.present()) != names:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_numbers_arrive_as_they_were_and_all_end_in_the_end(opened):
    fleet, invitations, _, _ = opened
    large = np.random.default_rng(0).standard_normal(2_000_000).astype(np.float32)  # in two parts
    # other numbers of each: Flower sends what two have in common once
    clients = [
        Client(one, functools.partial(lambda more, asked: asked.numbers + more, more))
        for more, one in enumerate(invitations, 1)
    ]
    wait_for(fleet, ["client-1", "client-2"])
    answers = dict(fleet.ask(task(numbers=large), fleet.present(), 30))
    for more, name in enumerate(("client-1", "client-2"), 1):
        assert (answers[name].numbers == large + more).all()
        assert answers[name].figures == {"loss": 1.5}
        assert answers[name].weight == 2.0
    sent, received = fleet.traffic()
    assert 2 * large.nbytes < min(sent, received) < 2.01 * large.nbytes
    last = dict(fleet.ask(task("end"), fleet.present(), 30))
    assert [answer.figures for answer in last.values()] == [{"loss": 1.5}] * 2
    fleet.__exit__(None, None, None)
    for one in clients:
        one.join(60)
        assert not one.is_alive()
        assert one.error is None
        assert [asked.kind for asked in one.tasks] == ["learn", "end"]
        assert (one.tasks[0].numbers == large).all()


def test_a_client_that_fails_or_leaves_is_told_by_name(opened):
    fleet, invitations, _, _ = opened

    def fail(asked):
        raise NotFiniteError("the loss is not finite", hint="a smaller rate")

    def leave(asked):
        raise SystemExit

    Client(invitations[0], fail)
    Client(invitations[1], leave)
    wait_for(fleet, ["client-1", "client-2"])
    answers = dict(fleet.ask(task(), fleet.present(), 30))
    assert answers["client-1"].message == "client-1 failed: the loss is not finite"
    assert answers["client-2"].message == "client-2 is gone"
    assert list(fleet.present()) == ["client-1"]


def test_a_client_that_takes_too_long_is_given_up(opened):
    fleet, invitations, _, _ = opened
    go_on = threading.Event()
    one = Client(invitations[0], lambda asked: asked.numbers if go_on.wait(20) else None)
    wait_for(fleet, ["client-1"])
    ((name, answer),) = fleet.ask(task(), ["client-1"], 1)
    assert name == "client-1"
    assert "did not answer within 1 s" in answer.message
    go_on.set()
    # its late answer is refused, and it goes on with the next task
    answers = dict(fleet.ask(task(), ["client-1"], 20))
    assert answers["client-1"].figures == {"loss": 1.5}
    assert one.error is None


def test_a_run_does_not_end_while_a_mean_is_computed_or_the_machine_sleeps(opened, monkeypatch):
    fleet, invitations, _, _ = opened
    Client(invitations[0])
    wait_for(fleet, ["client-1"])
    import flwr.supercore.corestate.in_memory_corestate as clock

    real = clock.now
    with monkeypatch.context() as later:
        later.setattr(clock, "now", lambda: real() + datetime.timedelta(hours=2))
        fleet._state.get_run_info(run_ids=[fleet._run])
        fleet._state.get_task_by_token("nothing")  # looks for what has expired
    answers = dict(fleet.ask(task(), ["client-1"], 20))
    assert answers["client-1"].figures == {"loss": 1.5}


def test_a_task_that_is_withdrawn_before_it_is_fetched_is_passed_over(opened, monkeypatch):
    fleet, invitations, _, _ = opened
    one = Client(invitations[0])
    wait_for(fleet, ["client-1"])
    with monkeypatch.context() as withdrawn:
        withdrawn.setattr(fleet._state, "get_object", lambda run, number: None)
        ((_, answer),) = fleet.ask(task(), ["client-1"], 2)
        assert "did not answer" in answer.message
    assert dict(fleet.ask(task(), ["client-1"], 20))["client-1"].figures == {"loss": 1.5}
    assert any("was withdrawn" in line for line in one.said)


def test_a_second_client_with_one_invitation_is_told_at_once(opened, monkeypatch):
    monkeypatch.setattr(supernode, "GONE_SECONDS", 1.0)  # that it waits whether the first one goes
    fleet, invitations, _, _ = opened
    first = Client(invitations[0])
    wait_for(fleet, ["client-1"])
    second = Client(invitations[0], wait=60)
    ends = time.monotonic() + 60
    while not second.said:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert "another client-1 is there" in second.said[0]
    answers = dict(fleet.ask(task(), ["client-1"], 20))
    assert answers["client-1"].figures == {"loss": 1.5}
    second.join(60)
    assert second.error.message == "another client has the place of client-1"
    assert "an invitation of its own" in second.error.hint
    assert not second.tasks
    assert first.is_alive()
    assert list(fleet.present()) == ["client-1"]


def test_a_client_that_is_started_again_takes_its_place_and_the_one_before_is_told(opened):
    fleet, invitations, _, _ = opened
    go_on = threading.Event()
    first = Client(invitations[0], lambda asked: asked.numbers if go_on.wait(30) else None)
    wait_for(fleet, ["client-1"])
    asked = fleet.ask(task(), ["client-1"], 60)
    answers = []
    waiting = threading.Thread(target=lambda: answers.extend(asked))
    waiting.start()
    while not first.tasks:
        time.sleep(0.05)
    fleet._places._clock = lambda: time.monotonic() + 3600  # nobody was heard for so long
    second = Client(invitations[0])
    waiting.join(60)  # and not until it takes too long
    ((name, answer),) = answers
    assert (name, answer.message) == ("client-1", "client-1 is gone")
    wait_for(fleet, ["client-1"])
    go_on.set()
    first.join(20)
    assert "another client has the place of client-1" in first.error.message
    assert list(fleet.present()) == ["client-1"]
    assert dict(fleet.ask(task(), ["client-1"], 20))["client-1"].figures == {"loss": 1.5}
    assert second.is_alive()


def test_who_is_not_invited_gets_nothing(opened, tmp_path):
    fleet, invitations, _, address = opened
    strangers = make_keys(tmp_path / "others", address, 1)
    key = read_invitation(strangers.invitations[0]).key
    known = invitations[0]
    uninvited = Client(Invitation(**{**vars_of(known), "key": key}), wait=0)
    uninvited.join(60)
    assert isinstance(uninvited.error, MachineError)
    assert "does not let client-1 in" in uninvited.error.message
    false_server = (strangers.folder / CERTIFICATE).read_text()
    other = Client(Invitation(**{**vars_of(known), "certificate": false_server}), wait=0)
    other.join(60)
    assert "is not the server of the invitation" in other.error.message
    assert list(fleet.present()) == []


def test_the_update_of_a_federation_is_the_mean_of_what_its_clients_learned(
    opened, tiny_folder, tmp_path
):
    fleet, invitations, _, _ = opened
    folder = tiny_folder("llama-3.2")
    asked = lesson(lora=dataclasses.replace(LORA, rank=8))
    rounds = Rounds(rounds=1, clients=2, wait=20)
    made = Federation(
        read_checkpoint(folder), tmp_path / "out", asked, rounds, base="it", say=lambda _: None
    )
    layout = made._layout
    learned = {}

    def learn(number, task):
        """Factors of which three directions are used, so that both sums fit the rank."""
        draws = np.random.default_rng(number)
        numbers = layout.numbers_of(task.numbers.copy(), "it")
        for own in numbers:
            for name in own:
                own[name] = draws.standard_normal(own[name].shape).astype(np.float32)
                if name.endswith("lora_B"):
                    own[name][:, 3:] = 0
        learned[number] = numbers
        return layout.row_of(numbers)

    for number, one in enumerate(invitations):
        Client(one, functools.partial(learn, number))
    (report,) = made.run(fleet)
    assert report.lost < 1e-6
    assert len(report.clients) == 2
    scale = LORA.alpha / 8
    for path, found in products(tmp_path / "out").items():
        layer, _, target = path.removeprefix("model.layers.").partition(".")
        changes = [
            own[int(layer)][f"{target}.lora_B"].astype(np.float64)
            @ own[int(layer)][f"{target}.lora_A"]
            for own in learned.values()
        ]
        mean = scale * sum(changes) / 2
        assert np.abs(found - mean).max() < 1e-5 * np.abs(mean).max()
    assert len(fleet._state.object_store) == 0  # nothing of what was sent stays in memory


def vars_of(invitation):
    return {name: getattr(invitation, name) for name in ("client", "server", "certificate", "key")}


def test_strangers_are_refused_before_their_bodies_are_read(opened):
    _, _, keys, address = opened
    context = ssl.create_default_context(cafile=keys.folder / CERTIFICATE)
    for path, status in (
        ("/v1/fleet/pull-messages", 401),
        ("/v1/other/paths", 404),
        ("/v1/runtime/acquire-task", 404),
        ("/docs", 404),
    ):
        connection = http.client.HTTPSConnection(*address, context=context, timeout=60)
        connection.putrequest("POST", path)
        connection.putheader("content-length", str(1 << 40))
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()
    plain = http.client.HTTPConnection(*address, timeout=60)
    plain.request("GET", "/")
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()


def test_a_server_that_is_started_again_with_its_keys_finds_its_clients(opened, tmp_path):
    fleet, invitations, keys, address = opened
    one = Client(invitations[0], wait=20)
    wait_for(fleet, ["client-1"])
    fleet.__exit__(None, None, None)
    again = keys_in(keys.folder, address, 2)
    assert again == keys
    assert keys_in(keys.folder, address, 3) is None
    with SuperLink(listening_socket(address, 8), again) as second:
        wait_for(second, ["client-1"])
        list(second.ask(task("end"), ["client-1"], 20))
    one.join(60)
    assert one.error is None
    text = json.loads((keys.folder / "client-1.invitation").read_text())
    assert text["server"] == str(address)
