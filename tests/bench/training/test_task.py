"""The work: whole steps of the same sequences, the same for every technique."""

import json

import pytest
from support.tiny import LLAMA, write_model

from edgellm.bench.training.task import Task, render_sequences
from edgellm.bench.training.task_settings import TaskSettings
from edgellm.bench.training.technique import Technique
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return read_checkpoint(write_model(tmp_path_factory.mktemp("model") / "tiny", LLAMA))


def task_of(sequences, *, accumulation=1):
    """A task of steps of four sequences."""
    technique = Technique(backend="edgellm", method="lora", accumulation=accumulation)
    settings = TaskSettings(batch=4, rank=2, alpha=4.0)
    return Task(folder="nowhere", technique=technique, sequences=sequences, settings=settings)


def test_our_own_text_is_as_long_as_it_is_asked_to_be(checkpoint):
    for tokens, steps in ((16, 3), (3000, 2)):
        settings = TaskSettings(tokens=tokens, batch=4, steps=steps)
        sequences = render_sequences(checkpoint, None, settings)
        assert {one.length for one in sequences} == {tokens}
        assert len(sequences) % 4 == 0
        assert len(sequences) <= 4 * steps
        assert all(one.targets[:-1] == one.tokens[1:] for one in sequences)


def test_data_are_whole_steps_or_are_refused(checkpoint, tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [{"prompt": f"Say {word}", "completion": word} for word in ("dog", "cat", "sun")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = TaskSettings(tokens=64, batch=2, steps=9)
    assert len(render_sequences(checkpoint, file, pairs)) == 2
    with pytest.raises(ConfigError, match="has 3 sequences, and a step takes 4"):
        render_sequences(checkpoint, file, TaskSettings(tokens=64, batch=4, steps=1))


def test_a_task_is_the_same_on_the_other_side_and_cut_in_parts(checkpoint):
    sequences = render_sequences(checkpoint, None, TaskSettings(tokens=8, batch=4, steps=2))
    task = task_of(sequences, accumulation=2)
    again = Task.of_order(json.loads(json.dumps(task.as_order())))
    assert again == task
    assert [len(part) for part in task.parts(0)] == [2, 2]
    assert [one for part in task.parts(3) for one in part] == task.step(3)
    whole = task_of(sequences)
    assert whole.parts(1) == [task.step(1)]
    # two epochs of two steps: all sequences in each
    assert {one.number for number in (2, 3) for one in task.step(number)} == set(range(8))
