"""Machines that learn every number of a model take the steps of one; links are reckoned with."""

import dataclasses
import math

import mlx.core as mx
import numpy as np
import pytest
from support.clusters import members, parts_in
from support.tiny import CONFIGS, write_model
from support.training import numbers_of, sequences, write_texts

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.cli.app import main
from edgellm.errors import ConfigError, MachineError
from edgellm.settings import LoadSettings
from edgellm.training.full.weights import count_all
from edgellm.training.learners.full import FullTask, open_full
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import StepReport, TrainRequest, open_run
from edgellm.training.together.link_costs import best_seconds, said_of_links
from edgellm.training.together.session import TrainingSession
from edgellm.training.together.share_memory import MEMBER_COPIES, plan_share
from edgellm.training.together.together import Together

TASK = FullTask(micro_tokens=1024, longest=32, step_tokens=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "source", CONFIGS["llama-3.2"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("data") / "data.txt")


def request(folder, data, out, *, hosts=None, shares=None, **settings):
    return TrainRequest(
        model=str(folder),
        data=data,
        folder=out,
        settings=TrainSettings(method="full", stage="text", batch=4, **settings),
        load=LoadSettings(memory="1GB", threads=1, machines=hosts),
        max_tokens=24,
        shares=shares,
    )


def machines(folder, place, count=1):
    """Other machines, which have not got the model: numbers are sent."""
    memories = ["1GB"] * count
    return members(
        folder, place, memories, make_session=TrainingSession, held=parts_in(place / "parts")
    )


def steps_of(asked):
    with open_run(asked) as run:
        steps = [step for step in run.run() if isinstance(step, StepReport)]
        return steps, numbers_of(run)


def test_three_machines_take_the_steps_of_one_and_one_goes_on(folder, data, tmp_path):
    one, expected = steps_of(request(folder, data, tmp_path / "one", steps=3))
    with machines(folder, tmp_path / "hosts", 2) as hosts:
        asked = request(folder, data, tmp_path / "out", hosts=hosts, shares=(2, 1, 1), steps=3)
        with open_run(asked) as run:
            require_derivatives_of_one(run)
            nbytes = 4 * count_all(read_checkpoint(folder).config)
            assert any(f"sends {nbytes / 1000:.0f} KB to each" in note for note in run.notes)
            steps = (step for step in run.run() if isinstance(step, StepReport))
            both = [next(steps), next(steps)]
            run.save()
    assert len([tokens for tokens in both[0].shares.values() if tokens]) == 3
    assert "Other machines" in (tmp_path / "out" / "training.html").read_text()
    load = dataclasses.replace(asked.load, machines=None)
    alone = dataclasses.replace(asked, load=load, shares=None, resume=True)
    (third,), found = steps_of(alone)
    for own, other in zip(one, [*both, third], strict=True):
        assert other.loss == pytest.approx(own.loss, abs=1e-5)
        assert other.norm == pytest.approx(own.norm, rel=1e-5)
        assert other.asked == own.asked
    for array, other in zip(expected, found, strict=True):
        assert float(mx.abs(array - other).max().item()) < 1e-5
    assert (tmp_path / "out" / "model.safetensors").exists()


def require_derivatives_of_one(run):
    """Compare derivatives of all machines with those of this one alone: of unequal sequences."""
    items, numbers = sequences(), run.trainer.numbers
    one = run._learner._own.gradients(items, numbers, 0)
    all_of_them = run._learner.gradients(items, numbers, 0)
    assert all_of_them.loss == pytest.approx(one.loss, abs=1e-6)
    for own, other in zip(one.by_changes, all_of_them.by_changes, strict=True):
        assert own.keys() == other.keys()
        largest = max(np.abs(np.array(array)).max() for array in own.values())
        for name, array in own.items():
            apart = np.abs(np.array(array) - np.array(other[name])).max()
            assert apart <= 1e-5 * largest


def test_a_step_ends_where_a_machine_is_missed(folder):
    calls = []

    def look_up():
        calls.append(None)
        if len(calls) == 3:
            raise MachineError("machine second is gone")

    checkpoint = read_checkpoint(folder)
    share = plan_share(checkpoint, TASK, 1 << 30, machines=2, copies=MEMBER_COPIES)
    learner = open_full(checkpoint, share.memory, LoadSettings(threads=1), look_up=look_up)
    numbers = learner.initial()
    with pytest.raises(MachineError, match="is gone"):
        learner.gradients(sequences(), numbers, 0)
    assert math.isfinite(learner.gradients(sequences(), numbers, 0).loss)
    learner.close()


def test_memory_counts_what_is_sent(folder):
    config = read_checkpoint(folder).config
    whole = plan_share(read_checkpoint(folder), TASK, 1 << 30, machines=2, copies=5)
    other = plan_share(read_checkpoint(folder), TASK, 1 << 30, machines=2, copies=3)
    assert whole.memory.numbers == 5 * 4 * count_all(config)
    assert other.memory.numbers == 3 * 4 * count_all(config)
    assert whole.room == TASK.step_tokens
    assert "moments and messages" in whole.memory.in_words()
    assert "moments" not in other.memory.in_words()


def test_numbers_that_no_message_holds_are_refused(folder, data, tmp_path):
    checkpoint = read_checkpoint(folder)
    huge = dataclasses.replace(checkpoint.config, vocab_size=1 << 25)
    with (
        machines(folder, tmp_path) as hosts,
        pytest.raises(ConfigError, match="too many for a message") as raised,
    ):
        Together(
            TASK,
            dataclasses.replace(checkpoint, config=huge),
            LoadSettings(memory="1GB", machines=hosts),
        )
    assert raised.value.hint


def test_a_step_is_shared_as_links_allow():
    # two machines alike: half of the tokens, and half of the way
    assert best_seconds(100, [0.01, 0.01], [0.0, 0.2]) == pytest.approx(0.6)
    # whose numbers are longer on their way than all takes here has nothing to do
    assert best_seconds(100, [0.01, 0.01], [0.0, 2.0]) == pytest.approx(1.0)
    assert best_seconds(100, [0.01, 0.01, 0.01], [0.0, 0.2, 5.0]) == pytest.approx(0.6)
    said = said_of_links(["here", "second"], 20_000_000, 100, [0.01, 0.01], [0.0, 0.2])
    assert "sends 20.0 MB to each machine, and gets as much back: second 200 ms" in said[0]
    assert "takes 600 ms on all of them, and 1.0 s on this machine alone" in said[1]
    said = said_of_links(["here", "second"], 20_000_000, 100, [0.01, 0.01], [0.0, 2.0])
    assert "leave out --machines, or take a larger --batch, from 200 tokens on" in said[1]


def test_the_plan_says_what_links_cost(folder, tmp_path, capsys):
    options = ["--train", "--full", "--batch", "4", "--max-tokens", "32", "--memory", "1GB"]
    with machines(folder, tmp_path) as hosts:
        assert main(["plan", str(folder), *options, "--machines", str(hosts)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    nbytes = 4 * count_all(read_checkpoint(folder).config)
    assert f"each step sends {nbytes / 1000:.0f} KB to each machine" in shown
    assert "on this machine alone" in shown
    assert "layers in memory" not in shown
