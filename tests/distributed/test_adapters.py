"""An adapter beside the weights of several machines gives what it gives on one, bit for bit."""

from contextlib import closing

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import LLAMA
from support.clusters import (
    answers,
    answers_of_one,
    members,
    part_budget,
    parts_in,
    require_equal,
    write_hosts,
)
from support.lora_files import dora_adapter, peft_adapter
from support.member_processes import MemberProcess
from support.paged import CONTEXT, PROMPT
from support.ports import free_port
from support.tiny import write_model

import edgellm
from edgellm.adapters.unmerged import open_unmerged
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.distributed.cluster import open_cluster
from edgellm.distributed.links.secret import new_secret
from edgellm.distributed.parts.changes import changes_bytes
from edgellm.distributed.parts.cut import cut_layers
from edgellm.settings import LoadSettings

LOAD = {"context": CONTEXT, "threads": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model in 4 bits, and two adapters of it."""
    folder = tmp_path_factory.mktemp("base")
    convert(write_model(folder / "plain", LLAMA), folder / "4", bits=4, group_size=32)
    peft_adapter(folder / "lora")
    dora_adapter(folder / "dora")
    return folder


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_machines_with_an_adapter_equal_one(base, tmp_path, adapter):
    load = LOAD | {"adapter": base / adapter}
    one, plain = answers_of_one(base / "4", **load), answers_of_one(base / "4", **LOAD)
    assert one[2] != plain[2]
    # the second has not got the model; an adapter's numbers come from the first in any case
    with (
        members(base / "4", tmp_path / "one", ["500MB"]) as hosts,
        edgellm.load(base / "4", memory="500MB", machines=hosts, **load) as llm,
    ):
        assert llm.plan.resident
        require_equal(one, answers(llm))
    with (
        members(None, tmp_path / "two", ["500MB"] * 2, held=parts_in(tmp_path / "kept")) as hosts,
        edgellm.load(base / "4", memory="500MB", machines=hosts, **load) as llm,
    ):
        require_equal(one, answers(llm))


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_a_machine_that_pages_with_an_adapter(base, tmp_path, adapter):
    checkpoint = read_checkpoint(base / "4")
    with edgellm.load(base / "4", memory="500MB", adapter=base / adapter, **LOAD) as llm:
        one = np.array(llm.logits(PROMPT))
    changes = open_unmerged(base / adapter, checkpoint).layer_changes(mx.float32)
    # room for the adapter beside what pins none of three layers
    other = part_budget(base / "4", 3, 0) + changes_bytes(changes)
    with members(base / "4", tmp_path, [other]) as hosts:
        settings = LoadSettings(memory=500_000_000, machines=hosts, adapter=base / adapter, **LOAD)
        cut = cut_layers([1, 3], in_turns=True)
        opened = open_cluster(checkpoint, settings, cut=cut)
        with closing(opened.model), closing(opened.reader):
            assert opened.plan.streamed
            caches = opened.caches.make(capacity=CONTEXT, reserve=CONTEXT)
            logits = np.array(opened.model(mx.array([PROMPT]), caches))
            assert np.array_equal(logits[0, -1], one[-1])


def test_a_machine_that_comes_back_has_the_adapter(base, tmp_path):
    secret = new_secret()
    with MemberProcess(base / "4", secret, port=free_port()) as member:
        hosts = write_hosts(tmp_path, [member.port], secret)
        load = LOAD | {"adapter": base / "lora", "memory": "500MB", "machines": hosts}
        with edgellm.load(base / "4", **load) as llm:
            whole = llm.generate(PROMPT, max_tokens=12).text
            member.end()
            member.process.wait()
            with (
                MemberProcess(base / "4", secret, port=member.port),
                pytest.warns(RuntimeWarning, match="is gone|is back"),
            ):
                assert llm.generate(PROMPT, max_tokens=12).text == whole
