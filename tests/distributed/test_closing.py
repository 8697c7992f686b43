"""A cluster that is closed, refused or lost leaves no thread and no connection, on either side."""

import time

import pytest
from support.clusters import members
from support.paged import CONTEXT, PROMPT
from support.resources import NOTHING, held, more_since

import edgellm
from edgellm.errors import ConfigError, MachineError

SECONDS = 30

pytestmark = pytest.mark.filterwarnings("ignore:machine .* is back:RuntimeWarning")


@pytest.fixture
def load(tiny_folder, tmp_path):
    """A function that loads a model on three machines, two of which are threads."""
    folder = tiny_folder("llama-3.2", config={"num_attention_heads": 8, "num_key_value_heads": 4})
    with members(folder, tmp_path, ["500MB"] * 2) as hosts:
        yield lambda **keywords: edgellm.load(
            folder, memory="500MB", threads=1, context=CONTEXT, machines=hosts, **keywords
        )


def used(load, **keywords):
    with load(**keywords) as llm:
        assert llm.generate(PROMPT, max_tokens=3).text


def lost(load, **keywords):
    with load(machine_wait=0, **keywords) as llm:
        llm.model.layers.peers[0]._data.fail("the cable is cut")
        with pytest.raises(MachineError, match="the cable is cut"):
            llm.generate(PROMPT, max_tokens=3)
        assert llm.generate(PROMPT, max_tokens=3).text  # it is called again


def refused(load, monkeypatch):
    def differs(machine, *_):
        raise ConfigError(f"{machine.name} computes otherwise")

    with monkeypatch.context() as patch:
        patch.setattr("edgellm.distributed.opened.require_same_arithmetic", differs)
        for split in ("windows", "rows"):
            with pytest.raises(ConfigError, match="computes otherwise"):
                load(split=split)


def settled():
    """What is there when the other machines have closed, too; they hear later of the end."""
    before, now = None, held()
    while now != before or any(thread.name.startswith("edgellm-pulse") for thread in now[0]):
        time.sleep(0.2)
        before, now = now, held()
    return now


def test_nothing_is_left(load, monkeypatch):
    used(load)  # what is made once is there then
    before = settled()
    for _ in range(3):
        used(load)
        used(load, split="rows")
    lost(load)
    lost(load, split="rows")
    refused(load, monkeypatch)
    ends = time.monotonic() + SECONDS
    while more_since(before) != NOTHING and time.monotonic() < ends:
        time.sleep(0.05)  # the other machines close when they learn that the first one is gone
    assert more_since(before) == NOTHING
