"""The forecast of a training run, beside what training then reads."""

import dataclasses

import pytest
from support.tiny import LAYERS, LLAMA, write_model
from support.training import LORA, sequences

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.runtime.forecast import TargetMachine
from edgellm.settings import LoadSettings
from edgellm.training.forecast.training_forecast import (
    TrainingForecast,
    bytes_of_a_step,
    forecast_training,
    reads,
)
from edgellm.training.learners.adapter_memory import TrainingMemory
from edgellm.training.learners.token_loss import step_gradients
from edgellm.training.low_rank import count_numbers, first_changed, initial_changes
from edgellm.training.micro_batch import micro_batches
from edgellm.training.run.settings import TrainSettings
from edgellm.training.trained_model import LayersInMemory, OpenModel

SETTINGS = TrainSettings(lora=LORA, batch=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return read_checkpoint(write_model(tmp_path_factory.mktemp("m") / "model", LLAMA))


def forecast(checkpoint, budget, target=None, *, settings=SETTINGS, here=False):
    load = LoadSettings(memory=budget, activations="float")
    return forecast_training(checkpoint, settings, load, target, lengths=[64, 64], here=here)


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_there_and_back_the_layers_that_are_read_are_twice_those_beyond_the_buffers(count, buffers):
    visits = [*range(count), *reversed(range(count))]
    assert len(reads(visits, buffers)) == 2 * max(0, count - buffers)


@pytest.mark.parametrize("layers", [None, 1, 2])
def test_a_step_reads_what_was_forecast(checkpoint, layers):
    lora = dataclasses.replace(LORA, layers=layers)
    settings = LoadSettings(activations="float")
    opened = OpenModel(checkpoint, lora, LayersInMemory((), 2), settings)
    changes = initial_changes(checkpoint.config, lora, 0)
    batches = micro_batches(sequences(), 100)
    step_gradients(opened.model, batches, changes)
    before = opened.model.layers.reads
    for _ in range(4):
        step_gradients(opened.model, batches, changes)
    found = (opened.model.layers.reads - before) / 4
    opened.close()
    memory = TrainingMemory(
        outer=0,
        layers=0,
        adapter=0,
        kept_inputs=0,
        backward=0,
        process=0,
        pinned=0,
        count=LAYERS,
        micro_tokens=100,
    )
    expected = bytes_of_a_step(checkpoint, memory, first_changed(lora, LAYERS))
    assert found == pytest.approx(expected / checkpoint.layers[0].nbytes)


def test_the_disk_is_hidden_where_arithmetic_takes_as_long(checkpoint):
    target = TargetMachine(disk=1e6)
    roomy = forecast(checkpoint, "1GB", target)
    least = roomy.least
    parts = dict(roomy.parts)
    parts.pop("results that are not computed again", None)
    streamed = 2 * checkpoint.layers[0].nbytes
    plan = forecast(checkpoint, sum(parts.values()) - parts["layers"] + streamed, target)
    assert plan.pinned == 0
    assert plan.bytes_read > 0
    assert not plan.is_measured
    numbers = plan.operations / 6
    moved = plan.bytes_read + plan.bytes_written
    expected = moved / 1e6 * plan.arithmetic / (6 * numbers)
    assert plan.hidden_from == pytest.approx(expected, abs=1)
    assert plan.seconds == pytest.approx(moved / 1e6), "128 tokens are not as many"
    assert plan.learned == count_numbers(initial_changes(checkpoint.config, LORA, 0))
    with pytest.raises(MemoryBudgetError):
        forecast(checkpoint, least - 1_000_001, target)


def test_kept_inputs_on_disk_are_written_and_read(checkpoint):
    target = TargetMachine(disk=1e6)
    lengths = [100] * 400

    def planned(memory):
        load = LoadSettings(memory=memory)
        return forecast_training(checkpoint, SETTINGS, load, target, lengths=lengths, here=False)

    roomy = planned("4GB")
    tight = planned(roomy.least)
    assert roomy.bytes_written == 0
    assert tight.bytes_written == LAYERS * sum(lengths) * checkpoint.config.hidden_size * 4
    layers = tight.bytes_read - tight.bytes_written
    assert 0 <= layers <= 2 * LAYERS * checkpoint.layers[0].nbytes
    moved = (tight.bytes_read + tight.bytes_written) / 1e6
    assert tight.seconds == pytest.approx(moved)


def test_the_arithmetic_of_a_model_that_is_here_is_measured(checkpoint):
    plan = forecast(checkpoint, "1GB", here=True)
    assert plan.is_measured
    assert plan.arithmetic > 0
    assert (plan.bytes_read, plan.disk, plan.hidden_from) == (0, None, 0)
    assert plan.total == sum(plan.parts.values())


def test_preferences_have_two_answers_and_a_reference(checkpoint):
    usual = forecast(checkpoint, "1GB")
    prefers = forecast(
        checkpoint, "1GB", settings=dataclasses.replace(SETTINGS, stage="dpo"), here=False
    )
    assert prefers.step_tokens == 2 * usual.step_tokens
    assert prefers.operations == usual.operations * 8 / 6
    config = checkpoint.config
    states = (config.num_hidden_layers + 2) * 128 * config.hidden_size * 4
    more = states + 2 * 256 * config.hidden_size * 4
    assert prefers.parts["kept inputs"] - usual.parts["kept inputs"] == more
    assert prefers.total > usual.total


def test_kept_inputs_on_the_disk_grow_with_the_tokens_that_hide_it():
    plan = TrainingForecast(
        parts={},
        total=0,
        budget=0,
        least=0,
        pinned=0,
        layers=8,
        learned=1,
        step_tokens=100,
        micro_tokens=100,
        bytes_read=3000,
        bytes_written=1000,  # 10 a token there, and 10 back
        operations=40,
        disk=1.0,
        arithmetic=1.0,
        is_measured=True,
    )
    tokens = plan.hidden_from
    assert tokens == 100, "40 a token are computed, 20 moved, and layers are 2000"
    assert plan.seconds == pytest.approx(4000.0)
    assert dataclasses.replace(plan, operations=20).hidden_from is None
    assert dataclasses.replace(plan, bytes_written=0).hidden_from == 75
