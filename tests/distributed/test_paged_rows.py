"""Machines that page rows of every matrix give what one gives, at the rate of all disks."""

import time
from contextlib import closing

import mlx.core as mx
import numpy as np
import pytest
from support.clusters import answers, answers_of_one, members, require_equal, rows_budget
from support.paged import CONTEXT, PROMPT
from support.readers import FailingReader, ThrottledReader

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.distributed.cluster import open_cluster
from edgellm.distributed.parts.open_rows import plan_rows
from edgellm.distributed.parts.rows import share_rows
from edgellm.distributed.row_choice import balanced_parts
from edgellm.kv_cache.cache import stored
from edgellm.settings import LoadSettings

LAYERS = 6
SHAPE = {"num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 4}
SHAPE |= {"max_position_embeddings": 1024}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_folder):
    """A model of six layers and four key/value heads in 4 bits."""
    made = tmp_path_factory.mktemp("made") / "4bit"
    convert(tiny_folder("llama-3.2", config=SHAPE, seed=1), made, bits=4)
    return made


@pytest.mark.parametrize(
    ("weights", "pinned", "load"),
    [
        ([1, 1], [0, 3], {"activations": "float", "kv_bits": 4}),
        ([2, 1, 1], [2, LAYERS, 0], {"activations": "int8", "kv_bits": 16}),
    ],
)
def test_paged_rows_equal_one(quantized, tmp_path, weights, pinned, load):
    load = {"context": CONTEXT, "threads": 1, "prefill_chunk": 32} | load
    own, *others = (
        rows_budget(quantized, place, weights, count, **load) for place, count in enumerate(pinned)
    )
    with (
        members(quantized, tmp_path, others) as hosts,
        edgellm.load(quantized, memory=own, machines=hosts, split="rows", **load) as llm,
    ):
        assert llm.plan.streamed
        assert llm.model.layers.takes_trees  # the drafts are trees then
        assert llm.machines[0].split == "rows"
        require_equal(answers_of_one(quantized, **load), answers(llm))
        assert llm.generate(PROMPT, max_tokens=4).stats.weight_passes >= 1


def test_after_cancelled_answers_and_failed_reads_texts_are_whole(quantized, tmp_path):
    load = {"context": CONTEXT, "threads": 1, "kv_bits": 16}
    own, other = (rows_budget(quantized, place, [1, 1], 3, **load) for place in range(2))
    readers = []

    def failing(*_):
        readers.append(FailingReader())
        return readers[-1]

    with edgellm.load(quantized, memory="500MB", **load) as llm:
        one = np.array(llm.logits(PROMPT)), llm.generate(PROMPT, max_tokens=8).text
    with members(quantized, tmp_path, [other], make_reader=failing) as hosts:
        settings = LoadSettings(memory=own, machines=hosts, split="rows", **load)
        with edgellm.load(quantized, settings) as llm:
            for tokens in (0, 2):
                stream = llm.stream(PROMPT, max_tokens=30)
                for _ in range(tokens):
                    next(stream)
                stream.cancel()
                assert llm.generate(PROMPT, max_tokens=8).text == one[1]
            readers[0].fail_at = readers[0].bytes_read + 1  # in the next pass, ahead of its use
            with pytest.raises(edgellm.ReadError, match=r"machine 127.0.0.1:\d+: reading"):
                llm.logits(PROMPT)
            readers[0].fail_at = None
            assert np.array_equal(np.array(llm.logits(PROMPT)), one[0])


def test_parts_grow_with_memory_and_with_the_disk(quantized):
    checkpoint = read_checkpoint(quantized)
    load = {"context": CONTEXT, "threads": 1, "kv_bits": 16}
    budgets = [rows_budget(quantized, place, [1, 1], 2, **load) for place in range(2)]
    plans = [
        plan_rows(checkpoint, share, LoadSettings(memory=budget, **load), layers_only=place > 0)
        for place, (share, budget) in enumerate(
            zip(share_rows(checkpoint.config, [1, 1]), budgets, strict=True)
        )
    ]
    total = sum(plan.pinned_bytes + plan.streamed_bytes for plan in plans)
    even, fast = (balanced_parts(plans, disks) for disks in ([1.0, 1.0], [3.0, 1.0]))
    assert sum(even) == pytest.approx(total)
    assert even[0] == pytest.approx(even[1], rel=0.05)
    reads = [part - plan.pinned_bytes for part, plan in zip(fast, plans, strict=True)]
    assert reads[0] == pytest.approx(3 * reads[1])


def seconds_of(opened, tokens):
    """Return how long tokens take, one after the other."""
    caches = opened.caches.make(capacity=CONTEXT, reserve=CONTEXT)
    begun = time.perf_counter()
    for token in range(tokens):
        mx.eval(opened.model(mx.array([[5 + token]]), caches), stored(caches))
    return time.perf_counter() - begun


def test_each_machine_reads_its_own_rows_and_nothing_twice(quantized, tmp_path):
    load = {"context": CONTEXT, "threads": 1, "kv_bits": 16, "prefill_chunk": 32}
    pinned = 2
    own, other = (rows_budget(quantized, place, [1, 1], pinned, **load) for place in range(2))
    rate = read_checkpoint(quantized).layers[0].nbytes * 100
    readers = []

    def throttled(*_):
        readers.append(ThrottledReader(rate))
        return readers[-1]

    with members(quantized, tmp_path, [other], make_reader=throttled) as hosts:
        settings = LoadSettings(memory=own, machines=hosts, split="rows", **load)
        opened = open_cluster(read_checkpoint(quantized), settings, make_reader=throttled)
        with closing(opened.model), closing(opened.reader):
            seconds = seconds_of(opened, tokens=5)
            read = [reader.bytes_read for reader in readers]
    layer = read_checkpoint(quantized).layers[0].nbytes / 2
    # what the rings have read ahead, before the first pass and after the last; norm and head
    ahead = 8 * layer
    streamed = 5 * (LAYERS - pinned) * layer
    for total in read:
        assert 0 <= total - pinned * layer - streamed <= ahead
    assert seconds >= 0.9 * (streamed - ahead) / rate
