"""Machines that page in turns read all the time: the sum of their disks, for a single text."""

import statistics
import time
from contextlib import closing

import mlx.core as mx
import pytest
from support.clusters import members, part_budget
from support.paged import CONTEXT
from support.readers import ThrottledReader

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.cluster import open_cluster
from edgellm.distributed.parts.cut import cut_layers
from edgellm.kv_cache.cache import stored
from edgellm.settings import LoadSettings

LAYERS = 16
EACH = LAYERS // 2
LAYERS_PER_SECOND = 40
SETTINGS = {"threads": 1, "kv_bits": 16, "prefill_chunk": 32}


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("llama-3.2", config={"num_hidden_layers": LAYERS})


def token_seconds(opened, tokens=5):
    """Return the median time of a token after the first two."""
    caches = opened.caches.make(capacity=CONTEXT, reserve=CONTEXT)
    times = []
    for token in range(tokens):
        begun = time.perf_counter()
        mx.eval(opened.model(mx.array([[5 + token]]), caches), stored(caches))
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def measured(folder, place, *, in_turns):
    """Return the time of a token on two machines, and how long a disk needs for its layers.

    Each has a throttled disk of its own and pins a quarter of its layers.
    """
    rate = read_checkpoint(folder).layers[0].nbytes * LAYERS_PER_SECOND
    readers = []

    def throttled(*_):
        readers.append(ThrottledReader(rate))
        return readers[-1]

    other = part_budget(folder, EACH, EACH // 4, **SETTINGS)
    own = part_budget(folder, EACH, EACH // 4, outer=True, **SETTINGS)
    with members(folder, place, [other], make_reader=throttled) as hosts:
        settings = LoadSettings(memory=own, context=CONTEXT, machines=hosts, **SETTINGS)
        cut = cut_layers([EACH, EACH], in_turns=in_turns, window=1)
        opened = open_cluster(read_checkpoint(folder), settings, cut=cut, make_reader=throttled)
        with closing(opened.model), closing(opened.reader):
            seconds = token_seconds(opened)
            assert len(opened.plan.streamed) == LAYERS - 2 * (EACH // 4)
            read = [reader.bytes_read for reader in readers]
    # both read the same, and nothing twice: five passes, and what the ring has read ahead
    assert max(read) - min(read) <= 3 * rate / LAYERS_PER_SECOND
    return seconds, (EACH - EACH // 4) / LAYERS_PER_SECOND


def test_both_disks_read_the_same_and_nothing_twice(folder, tmp_path):
    _, limit = measured(folder, tmp_path, in_turns=True)
    assert limit > 0


@pytest.mark.slow
def test_windows_in_turns_keep_both_disks_busy(folder, tmp_path):
    halves, _ = measured(folder, tmp_path / "halves", in_turns=False)
    turns, limit = measured(folder, tmp_path / "turns", in_turns=True)
    assert 0.9 * limit <= turns < 1.3 * limit
    assert halves > 1.3 * turns
