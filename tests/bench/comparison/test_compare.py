"""Result files beside each other: changes, and the noise that they may be."""

import math
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_records import MACHINE, evaluation, speed, training

from edgellm.bench.comparison.compare import Change, change, compare, environments


def test_a_change_is_the_median_of_all_pairs_and_knows_its_noise():
    faster = change([2.0, 2.1, 1.9, 2.0, 2.05], [1.0, 1.02, 0.98, 1.0, 1.01])
    assert faster.ratio == pytest.approx(2.0, rel=0.05)
    assert faster.low > 1.8
    assert faster.within_noise is False
    same = change([2.0, 2.1, 1.9, 2.0, 2.05], [2.0, 2.05, 1.95, 2.02, 1.99])
    assert same.within_noise is True
    assert change([1.0], [2.0]) == Change(0.5)
    assert change([1.0], [2.0]).within_noise is None
    assert change([1.0, 1.1], [2.0, 2.1]).confidence == pytest.approx(1 - 2 / 6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=7),
    st.lists(st.floats(0.1, 10), min_size=2, max_size=7),
)
def test_the_change_back_is_the_inverse(before, after):
    there, back = change(before, after), change(after, before)
    assert there.low <= there.ratio <= there.high
    assert back.low == pytest.approx(1 / there.high)
    assert back.high == pytest.approx(1 / there.low)
    assert there.confidence == pytest.approx(back.confidence)
    assert there.confidence <= 1


@pytest.mark.parametrize("count", [3, 5, 6])
def test_the_confidence_is_that_of_counting(count):
    """Of all ways to deal ranks to two sides, in so many does the interval hold the truth."""
    every = list(combinations(range(2 * count), count))
    found = change(
        [1.0 + place / 1000 for place in range(count)],
        [1.0 + place / 1000 for place in range(count)],
    )
    held = 0
    for chosen in every:
        rest = [rank for rank in range(2 * count) if rank not in chosen]
        one = change([math.exp(rank) for rank in chosen], [math.exp(rank) for rank in rest])
        held += one.low <= 1.0 <= one.high
    assert held / len(every) == pytest.approx(found.confidence)


def test_the_interval_covers_as_it_says():
    drawn = random.Random(5)
    held = 0
    for _ in range(400):
        before = [math.exp(drawn.gauss(0, 0.1)) for _ in range(5)]
        after = [math.exp(drawn.gauss(0, 0.1)) / 1.3 for _ in range(5)]
        found = change(before, after)
        held += found.low <= 1.3 <= found.high
    assert held / 400 > 0.92


def test_files_of_different_machines_are_matched_by_what_they_measure():
    other = MACHINE | {"chip": "Another", "cores": 8}
    mac = [
        speed(threads=4),
        speed(threads=4, test="pp8", seconds=(1.0,)),
        speed(threads=4, backend="cpu"),
    ]
    server = [
        speed(threads=8, environment=other, seconds=(0.5, 0.55, 0.6), model="/elsewhere/m"),
        speed(threads=8, test="pp8", error="killed", seconds=(), environment=other),
    ]
    found = compare([mac, server])
    assert {item.key["kind"] for item in found} == {"speed"}
    assert [(item.key["backend"], item.key["test"]) for item in found] == [
        ("edgellm", "tg32"),
        ("edgellm", "pp8"),
        ("cpu", "tg32"),
    ]
    assert found[0].changes[0].ratio == pytest.approx(2.0)
    assert found[1].changes == (None,)
    assert found[2].records[1] is None
    several = [speed(threads=count) for count in (1, 2)]
    assert len(compare([several, several])) == 2, "threads matter where a file has several of them"
    places = environments([mac, server])
    assert places == {"chip": ("A chip", "Another"), "cores": ("4", "8")}


def test_evaluations_of_two_files_are_matched_by_what_was_asked():
    asked = [
        {"task": "a"},
        {"task": "b"},
        {"task": "b", "shots": 5},
        {"task": "b", "decoding": "greedy"},
    ]
    slow = [evaluation([1, 0], seconds=(4.0,), **fields) for fields in asked]
    fast = [evaluation([1, 0], seconds=(1.0,), **fields) for fields in asked]
    found = compare([slow, fast])
    assert [match.records for match in found] == list(zip(slow, fast, strict=True))
    assert {match.changes[0].ratio for match in found} == {4.0}
    assert "task" not in compare([[speed()], [speed()]])[0].key


def test_training_is_matched_by_technique_and_by_the_data_of_a_step():
    before = [training(), training(test="LoRA, paged", pinned_layers=0), training(tokens=64)]
    after = [training(seconds=(0.5, 1.0)), training(tokens=256)]
    found = {(item.key["test"], item.key["work"]): item for item in compare([before, after])}
    assert len(found) == 4
    assert found["LoRA", "4 x 128 tokens"].changes[0].ratio == pytest.approx(2.0)
    assert found["LoRA", "4 x 64 tokens"].records[1] is None
