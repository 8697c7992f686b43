"""Numbers and records are the same behind the link."""

import dataclasses

import numpy as np
import pytest
from support.pairs import pairs
from support.tiny import LLAMA, write_model
from support.training import LORA, are_equal, moved, sequences

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError, MachineError
from edgellm.training.low_rank import change_shapes, count_numbers, initial_changes
from edgellm.training.together.messages import Layout, packed_items, unpacked_items


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return read_checkpoint(write_model(tmp_path_factory.mktemp("m") / "model", LLAMA)).config


def test_numbers_arrive_as_they_are(config):
    lora = dataclasses.replace(LORA, layers=2, ranks={"3.self_attn.q_proj": 2})
    changes = moved(initial_changes(config, lora, 1), 0.1)
    layout = Layout(change_shapes(config, lora))
    body = memoryview(b"".join(layout.parts(changes)))
    assert body.nbytes == layout.nbytes == 4 * count_numbers(changes)
    assert are_equal(layout.changes(body), changes)
    with pytest.raises(MachineError, match="bytes of numbers came"):
        layout.changes(body[4:])
    with pytest.raises(ConfigError, match="other numbers") as raised:
        Layout(change_shapes(config, LORA)).parts(changes)
    assert raised.value.hint


def test_records_arrive_as_they_are():
    assert unpacked_items(packed_items(sequences()), pairs=False) == sequences()
    assert unpacked_items(packed_items(pairs()), pairs=True) == pairs()


def test_records_that_are_cut_off_are_refused():
    whole = packed_items(sequences())
    ends = set(np.cumsum([8 * (2 + 2 * one.length) for one in sequences()]).tolist())
    for count in range(8, whole.nbytes, 8):
        if count not in ends:
            with pytest.raises(MachineError, match="cut off"):
                unpacked_items(whole[:count], pairs=False)
    flat = np.frombuffer(whole, np.int64).copy()
    flat[0] = -1
    with pytest.raises(MachineError, match="cut off"):
        unpacked_items(memoryview(flat).cast("B"), pairs=False)
    with pytest.raises(MachineError, match="without the other"):
        unpacked_items(packed_items(sequences()[:3]), pairs=True)
