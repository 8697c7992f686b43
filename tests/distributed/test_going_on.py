"""A text goes on after a machine was lost in it and is there again, as if nothing had been."""

import json
import time
from contextlib import contextmanager
from itertools import islice

import pytest
from support.clusters import members, write_hosts
from support.member_processes import MemberProcess
from support.paged import PROMPT
from support.relay import Relay

import edgellm
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret

LOAD = {"context": 200, "threads": 1, "memory": "500MB"}
PROMPTS = [PROMPT[place:] for place in range(4)]
HOWS = [
    {"max_tokens": 40},
    {"max_tokens": 40, "temperature": 1.0, "seed": 3, "repetition_penalty": 1.1},
    {"max_tokens": 8, "beams": 3},
]


@contextmanager
def cut_off(folder, place, **load):
    """A model on this machine and another, and a relay that can break their connections."""
    with members(folder, place, ["500MB"]) as direct:
        port = int(json.loads(direct.read_text())[1][0].rpartition(":")[2])
        with Relay(port) as relay:
            secret = secret_file(direct).read_text().strip()
            hosts = write_hosts(place / "relayed", [relay.port], secret)
            with edgellm.load(folder, machines=hosts, **{"machine_wait": 60} | LOAD | load) as llm:
                yield llm, relay


@contextmanager
def told():
    """Require a sentence about the loss, and one about the return."""
    with (
        pytest.warns(RuntimeWarning, match="is gone: waiting for it"),
        pytest.warns(RuntimeWarning, match="is back"),
    ):
        yield


def ids(tokens):
    return [token.id for token in tokens]


def batch(engine, break_at=None, relay=None):
    """The tokens of some prompts; the connections are broken at that many tokens of all."""
    numbers = [engine.submit(prompt, max_tokens=30) for prompt in PROMPTS]
    found = {number: [] for number in numbers}
    count = 0
    while not engine.idle:
        for number, token in engine.step():
            found[number].append(token.id)
            count += 1
            if count == break_at:
                relay.break_off()
    return list(found.values())


@pytest.mark.parametrize("split", ["windows", "rows"])
def test_a_text_goes_on(tiny_folder, tmp_path, split):
    folder = tiny_folder("llama-3.2")
    with edgellm.load(folder, **LOAD) as llm:
        whole = [ids(llm.generate(PROMPT, **how).tokens) for how in HOWS]
        together = [ids(one.tokens) for one in llm.generate_batch(PROMPTS, max_tokens=30)]
    with cut_off(folder, tmp_path, split=split) as (llm, relay):
        for how, expected in zip(HOWS, whole, strict=True):
            for reuse_cache in (False, True):
                stream = llm.stream(PROMPT, **how, reuse_cache=reuse_cache)
                found = ids(islice(stream, 5)) if "beams" not in how else []
                relay.break_off()
                with told():
                    found += ids(stream)
                assert found == expected
        with llm.engine() as engine, told():
            assert batch(engine, 33, relay) == together
        with llm.engine() as engine, told():  # a sequence alone, which drafts
            engine.submit(PROMPT, max_tokens=40)
            found = ids(token for _, token in engine.step())
            relay.break_off()
            while not engine.idle:
                found += ids(token for _, token in engine.step())
            assert found == whole[0]
        assert llm.prefix_cache.running_bytes == 0


def test_a_machine_that_was_lost_while_nobody_asked_is_called_again(tiny_folder, tmp_path):
    with cut_off(tiny_folder("llama-3.2"), tmp_path, machine_wait=0.1) as (llm, relay):
        text = llm.generate(PROMPT, max_tokens=20).text
        for _ in range(2):
            relay.break_off()
            time.sleep(0.3)
            with pytest.warns(RuntimeWarning, match="is back"):
                assert llm.generate(PROMPT, max_tokens=20).text == text


@pytest.mark.slow
def test_a_text_goes_on_when_a_killed_machine_is_started_again(tiny_folder, tmp_path):
    folder, secret = tiny_folder("llama-3.2"), new_secret()
    with (
        MemberProcess(folder, secret) as member,
        edgellm.load(
            folder,
            machines=write_hosts(tmp_path, [member.port], secret),
            machine_wait=60,
            **LOAD,
        ) as llm,
    ):
        whole = llm.generate(PROMPT, max_tokens=50).text
        stream = llm.stream(PROMPT, max_tokens=50)
        text = "".join(token.text for token in islice(stream, 10))
        member.end()
        member.process.wait()
        with told(), MemberProcess(folder, secret, port=member.port):
            assert text + "".join(token.text for token in stream) == whole
