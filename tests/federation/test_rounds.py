"""Rounds without a network: clients learn, fail, come late, and the server goes on."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
from support.federations import WORDS, InProcess, client, lesson, write_records
from support.lora_files import products
from support.training import LORA, in_four_bits

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError, MachineError, NotFiniteError
from edgellm.federation.fleet import Rounds
from edgellm.federation.privacy import Privacy
from edgellm.federation.rounds import Federation
from edgellm.settings import LoadSettings
from edgellm.training.run.train import TrainRequest, open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three clients' records: a handful each."""
    place = tmp_path_factory.mktemp("data")
    return [
        write_records(place / f"{number}.jsonl", WORDS[number * 2 : number * 2 + 4])
        for number in range(3)
    ]


@pytest.fixture
def clients(folder, data):
    made = {f"client-{number + 1}": client(folder, path) for number, path in enumerate(data)}
    yield made
    for one in made.values():
        one.close()


def federation(folder, out, *, asked=None, rounds=1, count=3, **keywords):
    return Federation(
        read_checkpoint(folder),
        out,
        asked or lesson(),
        Rounds(rounds=rounds, clients=count, wait=0),
        base=str(folder),
        say=lambda _: None,
        **keywords,
    )


class Failing:
    """A client that fails."""

    def answer(self, task):
        raise NotFiniteError("the loss is not finite", hint="a smaller rate")

    def close(self):
        pass


def test_one_client_learns_what_a_training_run_does(folder, data, tmp_path):
    lora = dataclasses.replace(LORA, dropout=0.1)
    asked = lesson(lora=lora, epochs=2)
    with closing(client(folder, data[0], folder=tmp_path / "own")) as one:
        fleet = InProcess({"client-1": one})
        list(federation(folder, tmp_path / "out", asked=asked, count=1).run(fleet))
    request = TrainRequest(
        model=str(folder),
        data=data[0],
        folder=tmp_path / "run",
        settings=asked.settings,
        load=LoadSettings(activations="float", memory="1GB"),
        max_tokens=64,
    )
    with open_run(request) as run:
        list(run.run())
    found, expected = products(tmp_path / "out"), products(tmp_path / "run")
    assert found.keys() == expected.keys()
    for path, change in expected.items():
        assert np.abs(found[path] - change).max() < 1e-5 * max(1, np.abs(change).max())
    # at the end the client has it, too
    for path, change in products(tmp_path / "own").items():
        assert (change == found[path]).all()


def test_the_servers_update_is_the_mean_of_the_products(folder, clients, tmp_path):
    """With rank 8 of matrices of 64 and 4 learned directions, the sum of three fits half."""
    fleet = InProcess(clients)
    made = federation(folder, tmp_path / "out")
    (report,) = made.run(fleet)
    layout, scale = made._layout, LORA.alpha / LORA.rank
    told = [
        (answer.weight, layout.numbers_of(answer.numbers, name))
        for name, answer in fleet.answers[:3]
    ]
    left = whole = 0.0
    for path, found in products(tmp_path / "out").items():
        layer, _, target = path.removeprefix("model.layers.").partition(".")
        mean = sum(
            weight
            / 12
            * scale
            * own[int(layer)][f"{target}.lora_B"].astype(np.float64)
            @ own[int(layer)][f"{target}.lora_A"]
            for weight, own in told
        )
        left += np.square(found - mean).sum()
        whole += np.square(mean).sum()
    assert 0 < report.lost < 1
    assert np.sqrt(left / whole) == pytest.approx(report.lost, rel=1e-3)
    assert sum(weight for weight, _ in told) == 12


def test_a_client_that_fails_changes_the_mean_alone(folder, clients, tmp_path):
    third = clients.pop("client-3")
    fleet = InProcess(clients)
    list(federation(folder, tmp_path / "two", count=2).run(fleet))
    fleet = InProcess({**clients, "client-3": Failing()})
    (report,) = federation(folder, tmp_path / "three").run(fleet)
    assert set(report.clients) == {"client-1", "client-2"}
    assert "not finite" in report.failed["client-3"]
    one, other = products(tmp_path / "two"), products(tmp_path / "three")
    assert all((one[path] == other[path]).all() for path in one)
    third.close()


def test_a_late_client_joins_the_next_round_and_one_leaves(folder, clients, tmp_path):
    third = clients.pop("client-3")
    fleet = InProcess(clients)
    counted = []
    for report in federation(folder, tmp_path / "out", rounds=3).run(fleet):
        counted.append(sorted(report.clients))
        if report.round == 1:
            fleet.clients["client-3"] = third
        else:
            fleet.clients.pop("client-1", None)
    assert counted == [
        ["client-1", "client-2"],
        ["client-1", "client-2", "client-3"],
        ["client-2", "client-3"],
    ]
    third.close()
    assert fleet.asked[-1] == ("end", 3, ["client-2", "client-3"])


def test_a_server_that_was_stopped_goes_on_with_the_same_bits(folder, data, clients, tmp_path):
    whole = federation(folder, tmp_path / "whole", rounds=3)
    list(whole.run(InProcess(clients)))
    stopped = federation(folder, tmp_path / "stopped", rounds=3)
    for _ in stopped.run(InProcess(clients)):
        break
    again = {f"client-{number + 1}": client(folder, path) for number, path in enumerate(data)}
    again = dict(reversed(again.items()))  # who answers first makes no difference
    resumed = federation(folder, tmp_path / "stopped", rounds=3, resume=True)
    assert resumed.state.round == 1
    list(resumed.run(InProcess(again)))
    assert (resumed.state.row == whole.state.row).all()
    assert [one["round"] for one in resumed.state.history] == [1, 2, 3]
    for one in again.values():
        one.close()
    with pytest.raises(ConfigError, match="began with another lesson"):
        federation(folder, tmp_path / "stopped", rounds=3, resume=True, asked=lesson(rate=0.5))
    with pytest.raises(ConfigError, match="holds a federation already"):
        federation(folder, tmp_path / "stopped", rounds=3)


def test_frozen_factors_stay_and_private_clients_tell_nothing_of_their_data(folder, data, tmp_path):
    privacy = Privacy(clip=0.5, noise=0.5)
    first = client(folder, data[0], privacy=privacy, valid=data[1])
    second = client(folder, data[1])
    fleet = InProcess({"client-1": first, "client-2": second})
    asked = lesson(freeze_a=True)
    made = federation(folder, tmp_path / "out", asked=asked, count=2, rounds=2)
    begin = made._layout.numbers_of(made.state.row, "it")
    reports = list(made.run(fleet))
    end = made._layout.numbers_of(made.state.row, "it")
    for old, new in zip(begin, end, strict=True):
        for name, array in old.items():
            assert (new[name] == array).all() == name.endswith("lora_A")
    told = reports[1].clients["client-1"]
    assert told.keys() == {"weight", "seconds", "memory", "epsilon", "delta"}
    assert told["epsilon"] == pytest.approx(privacy.epsilon(2))
    assert told["weight"] == 1
    assert reports[1].mean("loss") is None
    assert reports[1].lost == 0
    sent = fleet.answers[0][1].numbers
    assert sent.size == made._layout.only("lora_B").size
    moved = np.linalg.norm(sent.astype(np.float64))  # B began with zeros
    assert moved == pytest.approx(0.25 * np.sqrt(sent.size), rel=0.1)
    first.close()
    second.close()


def test_a_private_client_takes_no_part_where_both_factors_are_learned(folder, data, tmp_path):
    with closing(client(folder, data[0], privacy=Privacy(clip=1.0))) as one:
        made = federation(folder, tmp_path / "out", count=1)
        with pytest.raises(MachineError, match="3 times too few"):
            list(made.run(InProcess({"client-1": one})))
    assert made.state.round == 0


def test_a_model_of_other_shapes_is_refused(folder, data, tiny_folder, tmp_path):
    other = tiny_folder("llama-3.2", config={"intermediate_size": 96})
    with closing(client(other, data[0])) as one:
        made = federation(folder, tmp_path / "out", count=1)
        with pytest.raises(MachineError, match="other shapes"):
            list(made.run(InProcess({"client-1": one})))


def test_nobody_there_is_an_error_that_says_how_to_go_on(folder, tmp_path):
    made = federation(folder, tmp_path / "out")
    with pytest.raises(MachineError, match="0 of 1 clients are there") as caught:
        list(made.run(InProcess({})))
    assert "--resume" in caught.value.hint
