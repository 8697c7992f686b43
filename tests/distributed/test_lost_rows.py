"""Machines that have rows are lost in mid-gather, or cannot reach each other: errors name them."""

import json
import signal
import time
from contextlib import contextmanager

import pytest
from support.clusters import members
from support.member_processes import one_member
from support.paged import PROMPT
from support.relay import Relay

import edgellm
from edgellm.distributed.members.held_caches import HeldCaches
from edgellm.distributed.parts.rows import RowLayers
from edgellm.errors import ReadError
from edgellm.models.cpu.row_block import RowBlock

GROUPS = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
SECONDS = 10


@pytest.fixture
def folder(tiny_folder):
    """A tiny model of four key/value heads."""
    return tiny_folder("llama-3.2", config=GROUPS)


@contextmanager
def loaded(folder, hosts):
    with edgellm.load(
        folder, memory="500MB", threads=1, context=200, machines=hosts, split="rows", machine_wait=0
    ) as llm:
        yield llm


@contextmanager
def missed(llm, said):
    """A block that takes something away amid a text: an error says what, and comes in time."""
    stream = llm.stream(PROMPT, max_tokens=150)
    next(stream)
    yield
    begun = time.monotonic()
    with pytest.raises(edgellm.MachineError, match=said):
        list(stream)
    assert time.monotonic() - begun < SECONDS


def with_relay(hosts, relay):
    """Let the last machine of a file be reached through a relay."""
    machines = json.loads(hosts.read_text())
    machines[-1] = [f"127.0.0.1:{relay.port}"]
    hosts.write_text(json.dumps(machines))


def last_port(hosts):
    return int(json.loads(hosts.read_text())[-1][0].rpartition(":")[2])


def test_a_machine_is_stopped_in_mid_gather(folder, tmp_path, impatient):
    with (
        one_member(folder, tmp_path) as (member, hosts),
        loaded(folder, hosts) as llm,
        missed(llm, f"127.0.0.1:{member.port} is gone"),
    ):
        member.end(signal.SIGSTOP)


def test_the_cable_between_two_of_the_others_is_cut(folder, tmp_path, impatient):
    with (
        members(folder, tmp_path, ["500MB"] * 2) as hosts,
        Relay(last_port(hosts)) as relay,
    ):
        with_relay(hosts, relay)
        with loaded(folder, hosts) as llm:
            whole = llm.generate(PROMPT, max_tokens=20).text
            # this machine has called three times: for heartbeats, requests and rows
            with missed(llm, rf"machine 127.0.0.1:\d+: machine 127.0.0.1:{relay.port} is gone"):
                relay.cut(first=3)
            relay.mend()
            assert llm.generate(PROMPT, max_tokens=20).text == whole


def test_machines_that_cannot_reach_each_other_are_both_named(folder, tmp_path, impatient):
    with members(folder, tmp_path, ["500MB"] * 2) as hosts, Relay(last_port(hosts)) as relay:
        with_relay(hosts, relay)
        relay.cut(first=3)
        begun = time.monotonic()
        said = rf"machine 127.0.0.1:\d+: it cannot reach machine 127.0.0.1:{relay.port}"
        with pytest.raises(edgellm.MachineError, match=said) as error, loaded(folder, hosts):
            pass
        assert time.monotonic() - begun < SECONDS
        assert "--split" in error.value.hint


def test_an_error_on_one_machine_is_told_by_all(folder, tmp_path, monkeypatch):
    steps = RowBlock.steps

    def fails(block, stage, *rest, **named):
        if stage == "gate" and block is broken[0]:
            raise ReadError("the disk is broken")
        return steps(block, stage, *rest, **named)

    broken = [None]
    with members(folder, tmp_path, ["500MB"] * 2) as hosts, loaded(folder, hosts) as llm:
        whole = llm.generate(PROMPT, max_tokens=5).text
        monkeypatch.setattr(RowBlock, "steps", fails)
        own = [block for _, block in llm.model.layers._local.layers.through()]
        broken[0] = own[1]
        with pytest.raises(ReadError, match="the disk is broken"):
            llm.generate(PROMPT, max_tokens=5)
        seen = []
        monkeypatch.setattr(
            RowBlock,
            "steps",
            lambda *given, **named: seen.append(given[0]) or steps(*given, **named),
        )
        assert llm.generate(PROMPT, max_tokens=5).text == whole
        broken[0] = next(block for block in seen if block not in own)
        monkeypatch.setattr(RowBlock, "steps", fails)
        with pytest.raises(ReadError, match=r"machine 127.0.0.1:\d+: the disk is broken"):
            llm.generate(PROMPT, max_tokens=5)
        broken[0] = None
        assert llm.generate(PROMPT, max_tokens=5).text == whole


@pytest.mark.parametrize("where", ["here", "there"])
def test_nobody_waits_for_a_pass_that_never_began(folder, tmp_path, monkeypatch, where):
    kind = {"here": RowLayers, "there": HeldCaches}[where]
    name = {"here": "prepare", "there": "take_notes"}[where]
    works = getattr(kind, name)
    broken = []

    def fails(*given):
        if broken:
            broken.clear()
            raise RuntimeError("it is interrupted")
        return works(*given)

    with members(folder, tmp_path, ["500MB"] * 2) as hosts, loaded(folder, hosts) as llm:
        whole = llm.generate(PROMPT, max_tokens=5).text
        monkeypatch.setattr(kind, name, fails)
        broken.append(True)
        with pytest.raises((RuntimeError, edgellm.MachineError), match="it is interrupted"):
            llm.generate(PROMPT, max_tokens=5)
        assert llm.generate(PROMPT, max_tokens=5).text == whole
