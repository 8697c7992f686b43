"""Scales and biases are right in any order of asking, and read once in the usual one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import write_gguf
from support.tiny import CONFIGS

from edgellm.converters.gguf.blocks.scale_cache import (
    BIASES,
    MAX_MATRICES,
    SCALES,
    WEIGHT,
    ScaleCache,
)
from edgellm.converters.gguf.blocks.table import split_blocks
from edgellm.converters.gguf.source import GgufSource

CONFIG = CONFIGS["llama-2"] | {"num_hidden_layers": 1}
PATHS = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.embed_tokens"]
PARTS = (WEIGHT, SCALES, BIASES)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file, and what each part of its matrices is, shape (rows, bytes)."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    made = write_gguf(path, CONFIG, kinds=lambda name: "Q4_0")
    expected = {}
    for matrix in PATHS:
        kind, blocks = made[f"{matrix}.weight"]
        for part, values in zip(PARTS, split_blocks(kind, blocks), strict=True):
            expected[f"{matrix}.{part}"] = values.view(np.uint8)
    return path, expected


@given(data=st.data())
def test_any_rows_of_any_part_come_in_any_order(model, data):
    path, expected = model
    source = GgufSource(path)
    for _ in range(data.draw(st.integers(1, 12))):
        name = f"{data.draw(st.sampled_from(PATHS))}.{data.draw(st.sampled_from(PARTS))}"
        rows = len(expected[name])
        start = data.draw(st.integers(0, rows - 1))
        stop = data.draw(st.integers(start + 1, rows))
        found = source.rows(name, start, stop)
        assert np.array_equal(found, expected[name][start:stop].reshape(-1)), (name, start, stop)


def test_in_the_usual_order_nothing_is_read_twice(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, CONFIG, kinds=lambda name: "Q4_0")
    source = GgufSource(path)
    names = [f"{matrix}.{part}" for part in (SCALES, BIASES) for matrix in PATHS]
    fresh = GgufSource(path)
    expected = {name: fresh.rows(name, 0, fresh.tensors[name].rows) for name in names}
    for matrix in PATHS:
        rows = source.tensors[f"{matrix}.weight"].rows
        for start in range(0, rows, 48):
            source.rows(f"{matrix}.weight", start, min(start + 48, rows))
    path.unlink()
    for name in names:
        rows = source.tensors[name].rows
        assert np.array_equal(source.rows(name, 0, rows), expected[name]), name


def halves(rows, value):
    return np.full((rows, 2), value, np.float16)


def test_only_rows_that_came_are_given():
    cache = ScaleCache()
    cache.put("a", 10, 4, halves(3, 1), halves(3, 2))
    assert cache.get("a", SCALES, 3, 5) is None
    assert cache.get("a", SCALES, 6, 8) is None
    assert cache.get("b", SCALES, 4, 7) is None
    assert np.array_equal(cache.get("a", SCALES, 4, 7), halves(3, 1))
    cache.put("a", 10, 7, halves(3, 3), halves(3, 4))
    assert np.array_equal(cache.get("a", BIASES, 6, 8), np.array([[2, 2], [4, 4]]))


def test_it_holds_a_few_matrices_and_lets_go_of_one_that_was_given():
    cache = ScaleCache()
    for number in range(MAX_MATRICES + 1):
        cache.put(str(number), 2, 0, halves(2, number), halves(2, number))
    assert cache.get("0", SCALES, 0, 2) is None
    assert cache.get("1", SCALES, 0, 2) is not None
    assert cache.get("1", BIASES, 0, 2) is not None
    assert cache.get("1", SCALES, 0, 2) is None
