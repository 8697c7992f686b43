"""Machines that learn every number of a model take the steps of one; links are reckoned with."""

import dataclasses
import json
import math

import mlx.core as mx
import numpy as np
import pytest
from support.clusters import members
from support.tiny import CONFIGS, TEXTS, write_model
from support.training import numbers_of, sequences

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.cli.app import main
from edgellm.distributed.supply.part_folder import PartFolder
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

TASK = FullTask(micro_tokens=1024, longest=32, step_tokens=128, data_tokens=1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "source", CONFIGS["llama-3.2"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.txt"
    path.write_text("\n<|endoftext|>\n".join(TEXTS))
    return path


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
    return members(folder, place, memories, make_session=TrainingSession, held=PartFolder)


def steps_of(asked):
    with open_run(asked) as run:
        steps = [step for step in run.run() if isinstance(step, StepReport)]
        return steps, numbers_of(run)


def test_three_machines_take_the_steps_of_one(folder, data, tmp_path):
    one, expected = steps_of(request(folder, data, tmp_path / "one", steps=3))
    with machines(folder, tmp_path / "hosts", 2) as hosts:
        asked = request(folder, data, tmp_path / "two", hosts=hosts, shares=(2, 1, 1), steps=3)
        two, found = steps_of(asked)
    for own, other in zip(one, two, strict=True):
        assert other.loss == pytest.approx(own.loss, abs=1e-5)
        assert other.norm == pytest.approx(own.norm, rel=1e-5)
        assert other.asked == own.asked
        assert len([tokens for tokens in other.shares.values() if tokens]) == 3
    for array, other in zip(expected, found, strict=True):
        assert float(mx.abs(array - other).max().item()) < 1e-5
    assert (tmp_path / "two" / "model.safetensors").exists()
    assert "Other machines" in (tmp_path / "two" / "training.html").read_text()


def test_derivatives_are_those_of_the_whole_batch(folder, data, tmp_path):
    with machines(folder, tmp_path / "hosts") as hosts:
        asked = request(folder, data, tmp_path / "out", hosts=hosts, shares=(1, 1))
        with open_run(asked) as run:
            items = sequences()
            numbers = run.trainer.numbers
            own = run._learner._own.gradients(items, numbers, 0)
            both = run._learner.gradients(items, numbers, 0)
            nbytes = 4 * count_all(read_checkpoint(folder).config)
            [said] = [note for note in run.notes if note.startswith("each step sends")]
            assert f"{nbytes / 1000:.0f} KB to each machine" in said
    assert both.loss == pytest.approx(own.loss, abs=1e-6)
    for alone, together in zip(own.by_changes, both.by_changes, strict=True):
        assert alone.keys() == together.keys()
        largest = max(np.abs(np.array(array)).max() for array in alone.values())
        for name, array in alone.items():
            apart = np.abs(np.array(array) - np.array(together[name])).max()
            assert apart <= 1e-5 * largest


def test_a_run_that_was_stopped_goes_on_in_the_same_bits_and_alone(folder, data, tmp_path):
    with machines(folder, tmp_path / "hosts") as hosts:
        whole = request(folder, data, tmp_path / "whole", hosts=hosts, shares=(2, 1), steps=4)
        steps, expected = steps_of(whole)
        stopped = dataclasses.replace(whole, folder=tmp_path / "stopped")
        with open_run(stopped) as run:
            next(step for step in run.run() if getattr(step, "step", 0) == 2)
            run.save()
        rest, found = steps_of(dataclasses.replace(stopped, resume=True))
        assert [step.loss for step in rest] == [step.loss for step in steps[2:]]
        assert all(mx.array_equal(*pair) for pair in zip(found, expected, strict=True))
    longer = dataclasses.replace(stopped.settings, steps=5)
    load = dataclasses.replace(stopped.load, machines=None)
    alone = dataclasses.replace(stopped, settings=longer, load=load, shares=None, resume=True)
    (last,), _ = steps_of(alone)
    assert math.isfinite(last.loss)


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
        words = ["plan", str(folder), *options, "--machines", str(hosts)]
        assert main([*words, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        shown = capsys.readouterr().out
    assert plan["message_bytes"] == 4 * count_all(read_checkpoint(folder).config)
    assert plan["notes"][0] in shown.replace("\n", " ") or "each step sends" in shown
    assert "layers in memory" not in shown
