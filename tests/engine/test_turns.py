"""Groups take turns where that is measured to be faster than all sequences at once."""

from itertools import count

import pytest

from edgellm.engine.turns import AGAIN_STEPS, TRIED_STEPS, TurnPace


def taken(pace, seconds_of, steps):
    """The ways of so many steps, each of which lasts as long as ``seconds_of`` its way says."""
    ways = []
    for _ in range(steps):
        ways.append(pace.groups)
        pace.observe(ways[-1], 12 // ways[-1], seconds_of(ways[-1]))
    return ways


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("faster", ["groups", "together"])
def test_the_faster_way_is_taken_after_both_were_tried(groups, faster):
    pace = TurnPace(groups)
    best = groups if faster == "groups" else 1

    def seconds_of(way):
        return (1.0 if way == best else 1.2) / way

    ways = taken(pace, seconds_of, 5 * TRIED_STEPS)
    assert sorted(ways[: 2 * TRIED_STEPS]) == sorted([1, groups] * TRIED_STEPS)
    assert set(ways[2 * TRIED_STEPS :]) == {best}


def test_groups_of_unequal_sizes_are_weighed_by_their_tokens():
    pace, sizes = TurnPace(2), count()

    def step(way):
        # three sequences in the time of two together, or one and two in turn, each as long as two
        tokens = 3 if way == 1 else 1 + next(sizes) % 2
        pace.observe(way, tokens, 1.0 if way == 1 else 0.52)

    for _ in range(2 * TRIED_STEPS):
        step(pace.groups)
    assert pace.groups == 1  # 0.35 s for a token in groups, 0.33 s together


def test_the_slower_way_is_tried_again_later():
    pace = TurnPace(2)
    taken(pace, {1: 1.0, 2: 0.6}.__getitem__, 2 * TRIED_STEPS)
    ways = taken(pace, {1: 1.0, 2: 0.4}.__getitem__, 3 * AGAIN_STEPS)
    assert set(ways[: AGAIN_STEPS // 2]) == {1}
    assert set(ways[-AGAIN_STEPS // 2 :]) == {2}
