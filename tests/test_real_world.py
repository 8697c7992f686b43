"""A sample of what ``python tests/real_world.py`` rebuilds and holds against other tools."""

import importlib.util
from dataclasses import replace

import pytest
from real_world.compare import compare
from real_world.kinds import RELEASES
from real_world.peers import Peers

CHEAP = ["Llama 2 7B chat", "Llama 3.1 8B Instruct", "Qwen3 0.6B"]
WITH_TORCH = ["Granite 3.1 2B Instruct", "Yi 6B chat"]
"""Which mlx-lm does not run, or runs under another name."""


@pytest.fixture(scope="module")
def peers():
    with Peers() as running:
        yield running


def oracle():
    if importlib.util.find_spec("torch"):
        return "transformers"
    return "mlx-lm"


@pytest.mark.parametrize("name", CHEAP)
def test_a_release_says_what_it_says_elsewhere(name, tmp_path, peers):
    row = compare(replace(RELEASES[name], oracle=oracle()), tmp_path, peers)
    assert row.right, row.wrong
    assert row.ids[1] > 80
    assert row.logits < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("name", WITH_TORCH)
def test_a_release_says_what_it_says_in_transformers(name, tmp_path, peers):
    row = compare(RELEASES[name], tmp_path, peers)
    assert row.right, row.wrong


def test_a_difference_is_found(tmp_path, peers):
    def build(path, peers):
        built = RELEASES["Qwen3 0.6B"].build(path, peers)
        other = RELEASES["Llama 3.1 8B Instruct"].build(path.parent / "other", peers)
        return replace(built, theirs=other.path)

    row = compare(replace(RELEASES["Qwen3 0.6B"], oracle=oracle(), build=build), tmp_path, peers)
    assert not row.right
    assert row.ids[0] < row.ids[1]
    assert row.templates[0] < row.templates[1]


def test_each_release_has_a_row():
    assert len(RELEASES) >= 60
