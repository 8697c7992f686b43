"""A text goes on after a machine was lost in it and is there again, as if nothing had been."""

import json
import random
import time
from contextlib import ExitStack, contextmanager
from itertools import islice

import pytest
from support.clusters import members, write_hosts
from support.member_processes import MemberProcess
from support.paged import PROMPT
from support.ports import free_port
from support.relay import Relay
from support.traffic import Traffic

import edgellm
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret

LOAD = {"context": 200, "threads": 1, "memory": "500MB"}
PROMPTS = [PROMPT[place:] for place in range(4)]
HOWS = [
    {"max_tokens": 40},
    {"max_tokens": 40, "temperature": 1.0, "seed": 3, "repetition_penalty": 1.1},
    {"max_tokens": 8, "beams": 3},
]


@contextmanager
def cut_off(folder, place, *, others=1, **load):
    """A model on this machine and others, and relays that can break their connections."""
    with ExitStack() as stack:
        direct = stack.enter_context(members(folder, place, ["500MB"] * others))
        addresses = [address for (address,) in json.loads(direct.read_text())[1:]]
        relays = [
            stack.enter_context(Relay(int(address.rpartition(":")[2]))) for address in addresses
        ]
        secret = secret_file(direct).read_text().strip()
        hosts = write_hosts(place / "relayed", [relay.port for relay in relays], secret)
        settings = {"machine_wait": 60} | LOAD | load
        llm = stack.enter_context(edgellm.load(folder, machines=hosts, **settings))
        yield llm, *relays


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


def test_a_machine_that_is_elsewhere_is_found_where_the_files_say(tiny_folder, tmp_path):
    folder = tiny_folder("llama-3.2")
    with (
        members(folder, tmp_path / "two", ["500MB"]) as elsewhere,
        cut_off(folder, tmp_path / "one") as (llm, relay),
    ):
        whole = ids(llm.generate(PROMPT, max_tokens=20).tokens)
        stream = llm.stream(PROMPT, max_tokens=20)
        found = ids(islice(stream, 5))
        hosts = tmp_path / "one" / "relayed" / "hosts.json"
        hosts.write_text(elsewhere.read_text())  # by hand, and by cluster start
        write_secret(secret_file(hosts), secret_file(elsewhere).read_text().strip())
        relay.break_off()
        with told():
            found += ids(stream)
        assert found == whole


TRAFFIC = [
    (kind, split, seed)
    for kind, split in [
        ("llama-3.2", "windows"),
        ("llama-3.2", "rows"),
        ("mistral-window", "windows"),
    ]
    for seed in range(6)
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:machine.*texts are computed again:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:machine.*waiting for it:RuntimeWarning")
@pytest.mark.parametrize(("kind", "split", "seed"), TRAFFIC)
def test_sequences_that_come_and_go_say_the_same(tiny_folder, tmp_path, kind, split, seed):
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4} if split == "rows" else {}
    folder = tiny_folder(kind, config={"num_hidden_layers": 6, **heads}, seed=1)
    draw = random.Random(seed)
    with (
        edgellm.load(folder, **LOAD) as one,
        cut_off(folder, tmp_path, others=2, split=split) as (llm, *relays),
        llm.engine(max_queue=6, at_once=draw.choice([2, 3, 5])) as engine,
    ):
        traffic = Traffic(engine, draw, max_tokens=range(1, 70))
        while len(traffic.prompts) < 15 or not engine.idle:
            if len(traffic.prompts) < 15 and draw.random() < 0.2:
                traffic.submit()
            if draw.random() < 0.03:
                traffic.cancel()
            if draw.random() < 0.02:
                for relay in draw.choice([relays[:1], relays[1:], relays]):
                    relay.break_off()
            traffic.take(engine.step())
            traffic.check_memory(llm.prefix_cache)

        def alone(prompt, settings):
            return [token.id for token in one.generate(prompt, **settings).tokens]

        traffic.check_end(llm.prefix_cache, alone)


@pytest.mark.slow
def test_a_text_goes_on_when_a_killed_machine_is_started_again(tiny_folder, tmp_path):
    folder, secret = tiny_folder("llama-3.2"), new_secret()
    with (
        MemberProcess(folder, secret, port=free_port()) as member,
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
