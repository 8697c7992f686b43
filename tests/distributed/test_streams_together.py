"""Streams share machines: those in memory take turns, those that page share each read."""

import random

import pytest
from support.clusters import members, part_budget
from support.paged import CONTEXT, PROMPT
from support.readers import ThrottledReader
from support.traffic import Traffic

import edgellm
from edgellm.converters import convert
from edgellm.engine.turns import TRIED_ROUNDS

LOAD = {"context": 200, "threads": 1, "memory": "500MB"}
PROMPTS = [PROMPT[place:] for place in range(5)]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_folder):
    """A tiny model of eight layers in 4 bits."""
    made = tmp_path_factory.mktemp("made") / "4bit"
    convert(tiny_folder("llama-3.2", config={"num_hidden_layers": 8}, seed=1), made, bits=4)
    return made


def run(engine):
    """Compute all; return each sequence's tokens, and how many of its sequences a step served."""
    found, served = {}, []
    while not engine.idle:
        running = engine.running
        tokens = engine.step()
        served.append((len(tokens), running))
        for number, token in tokens:
            found.setdefault(number, []).append(token.id)
    return found, served


@pytest.mark.parametrize(("others", "how"), [(1, {}), (2, {"temperature": 1.0, "seed": 5})])
def test_groups_in_turn_say_what_one_machine_says(quantized, tmp_path, others, how):
    how = {"max_tokens": 100, **how}  # caches grow in between
    with edgellm.load(quantized, **LOAD) as llm:
        llm.eos_token_ids = frozenset()
        one = [[token.id for token in llm.generate(prompt, **how).tokens] for prompt in PROMPTS]
    with (
        members(quantized, tmp_path, ["500MB"] * others) as hosts,
        edgellm.load(quantized, machines=hosts, split="windows", **LOAD) as llm,
    ):
        llm.eos_token_ids = frozenset()
        with llm.engine() as engine:
            for prompt in PROMPTS:
                engine.submit(prompt, **how)
            found, served = run(engine)
        assert list(found.values()) == one
        groups = others + 1
        most = -(-len(PROMPTS) // groups)
        # both ways have been tried
        assert sum(0 < tokens <= most for tokens, running in served if running == 5) > TRIED_ROUNDS
        assert sum(tokens == running == 5 for tokens, running in served) >= TRIED_ROUNDS
        assert llm.prefix_cache.running_bytes == 0


def test_sequences_that_come_and_go_leave_nothing(quantized, tmp_path):
    draw = random.Random(4)
    with (
        members(quantized, tmp_path, ["500MB"]) as hosts,
        edgellm.load(quantized, **LOAD) as one,
        edgellm.load(quantized, machines=hosts, split="windows", **LOAD) as llm,
    ):
        with llm.engine(max_queue=6, at_once=4) as engine:
            traffic = Traffic(engine, draw, max_tokens=range(1, 50))
            while len(traffic.prompts) < 20 or not engine.idle:
                if len(traffic.prompts) < 20 and draw.random() < 0.2:
                    traffic.submit()
                if draw.random() < 0.05:
                    traffic.cancel()
                traffic.take(engine.step())
                traffic.check_memory(llm.prefix_cache)

            def alone(prompt, settings):
                return [token.id for token in one.generate(prompt, **settings).tokens]

            traffic.check_end(llm.prefix_cache, alone)
        with llm.engine() as engine:  # closed while groups are under way
            for prompt in PROMPTS:
                engine.submit(prompt, max_tokens=50)
            while len(engine.step()) != 3:
                pass
        assert llm.generate(PROMPT, max_tokens=5).text == one.generate(PROMPT, max_tokens=5).text


def test_streams_share_what_each_machine_reads(quantized, tmp_path):
    """A pass reads the same on every machine, however many sequences go with it."""
    readers = []

    def counting(*_):
        readers.append(ThrottledReader(1e9))
        return readers[-1]

    own, other = part_budget(quantized, 4, 1, outer=True), part_budget(quantized, 4, 1)
    load = {"context": CONTEXT, "threads": 1, "memory": own, "speculate": "off"}
    with (
        members(quantized, tmp_path, [other], make_reader=counting) as hosts,
        edgellm.load(quantized, machines=hosts, split="windows", **load) as llm,
    ):
        assert not llm.plan.resident
        llm.eos_token_ids = frozenset()

        def bytes_per_pass(streams):
            before = readers[0].bytes_read
            with llm.engine() as engine:
                for prompt in PROMPTS[:streams]:
                    engine.submit(prompt, max_tokens=10)
                run(engine)
                stats = engine.stats
            assert (stats.completion_tokens, stats.passes) == (10 * streams, 10)
            there = readers[0].bytes_read - before
            return stats.bytes_read / stats.passes, there / stats.passes

        bytes_per_pass(1)
        alone, together = bytes_per_pass(1), bytes_per_pass(5)
        assert min(alone) > 0
        # a layer may be read ahead for a pass that does not come
        assert together == pytest.approx(alone, rel=0.15)
