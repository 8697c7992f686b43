"""Shares end together, and stay as they are until they do not."""

from dataclasses import dataclass

import pytest

from edgellm.training.together.shares import (
    FIRST_STEPS,
    LOOKED_AT,
    PROBE_COST,
    PROBE_STEPS,
    Shares,
)


@dataclass
class Record:
    length: int


def records(*lengths):
    return [Record(length) for length in lengths]


def tokens_of(shares):
    return [sum(item.length for item in share) for share in shares]


def shares_of(paces=(1.0, 1.0), rooms=(1000, 1000), trips=(0.0, 0.0), **how):
    return Shares(list(rooms), list(paces), list(trips), **how)


def test_all_records_are_given_away_once_in_their_order():
    items = records(5, 40, 7, 30, 12, 12, 50, 3)
    found = shares_of().of(items)
    assert sorted(map(id, [*found[0], *found[1]])) == sorted(map(id, items))
    places = [[items.index(item) for item in share] for share in found]
    assert places == [sorted(own) for own in places]
    assert abs(tokens_of(found)[0] - tokens_of(found)[1]) <= 5


def test_a_slow_machine_and_a_slow_link_get_less():
    items = records(*[10] * 40)
    assert tokens_of(shares_of((1.0, 3.0)).of(items)) == [300, 100]
    far = shares_of((1.0, 1.0), trips=(0.0, 100.0), measured=True)
    assert tokens_of(far.of(items)) == [250, 150]
    assert tokens_of(shares_of((1.0, 1.0), trips=(0.0, 1e6), measured=True).of(items)) == [400, 0]


def test_a_share_has_at_most_one_record_more_than_its_room():
    items = records(*[10] * 40)
    found = tokens_of(shares_of((1.0, 100.0), rooms=(205, 200)).of(items))
    assert found[0] <= 205 + 10
    assert sum(found) == 400


def test_paces_are_those_of_the_first_steps_and_change_when_machines_end_apart():
    shares = shares_of()
    for step in range(FIRST_STEPS):
        assert shares.document() is None
        # the first step takes longer, and says nothing
        assert shares.ended([100, 100], [1.0 + 9 * (step == 0), 2.0]) == (step == FIRST_STEPS - 1)
    assert shares.document() == {"paces": [0.01, 0.02], "trips": [0.0, 0.0]}
    for _ in range(3 * LOOKED_AT):
        assert not shares.ended([200, 100], [2.1, 2.0])
    told = [shares.ended([200, 100], [2.0, 6.0]) for _ in range(LOOKED_AT)]
    assert told == [False] * (LOOKED_AT - 1) + [True]
    assert shares.paces == pytest.approx([0.01, 0.06])


def taken_by(shares, machine, items, steps, seconds_of):
    """The steps of so many in which a machine had a record, where tokens take such seconds."""
    found = []
    for step in range(steps):
        tokens = tokens_of(shares.of(items, step))
        if tokens[machine]:
            found.append(step)
        shares.ended(tokens, [own * seconds_of(step, each) for each, own in enumerate(tokens)])
    return found


def test_a_machine_whose_share_became_none_is_tried_again_and_gets_one_once_it_is_fast():
    items = records(*[10] * 9, 7)
    shares = shares_of((0.01, 1.0), measured=True)

    def slow_until(end):
        return lambda step, machine: 1.0 if machine and step < end else 0.01

    assert taken_by(shares, 1, items, 10 * PROBE_STEPS, slow_until(1e9)) == [
        8 * PROBE_STEPS - 1  # a try of 7 s beside steps of 1 s
    ]
    assert tokens_of(shares.of(items, 8 * PROBE_STEPS - 1)) == [90, 7]
    again = taken_by(shares, 1, items, 9 * PROBE_STEPS, slow_until(PROBE_STEPS))
    assert again[0] == 8 * PROBE_STEPS - 1
    assert len(again) > PROBE_STEPS - 2 * LOOKED_AT, "and has a share from then on"


def test_a_try_of_one_record_is_not_held_against_a_machine_whose_passes_have_a_price():
    items = records(*[10] * 10)
    shares = shares_of((0.02, 1.0), measured=True)
    for step in range(9 * PROBE_STEPS):
        tokens = tokens_of(shares.of(items, step))
        # of one record 0.16 s a token, of five 0.04
        shares.ended(tokens, [0.02 * tokens[0], 1.5 + 0.01 * tokens[1] if tokens[1] else 0.0])
    assert shares.measured
    assert tokens_of(shares.of(items))[1] >= 20


@pytest.mark.parametrize("slowness", [20, 200, 2000])
def test_tries_take_little_of_the_time(slowness):
    items, pace, steps = records(*[10] * 8), 0.01, 1 << 15
    shares = shares_of((pace, pace * slowness), trips=(0.0, 0.5), measured=True)
    tried = [each for each in range(steps) if each % PROBE_STEPS == PROBE_STEPS - 1]
    tried = [step for step in tried if tokens_of(shares.of(items, step))[1]]
    assert 0 < len(tried) * (0.5 + 10 * pace * slowness) <= steps * 80 * pace / PROBE_COST


def test_machines_are_measured_where_there_are_fewer_records_than_machines():
    shares = shares_of((1.0, 1.0, 1.0), (1000,) * 3, (0.0,) * 3)
    items = records(10)
    for step in range(3 * FIRST_STEPS):
        tokens = tokens_of(shares.of(items, step))
        shares.ended(tokens, [own * (0.3, 0.1, 0.2)[each] for each, own in enumerate(tokens)])
    assert shares.measured
    assert shares.paces == pytest.approx([0.3, 0.1, 0.2])
    assert tokens_of(shares.of(items, 0)) == [0, 10, 0]


def test_nobody_is_tried_where_shares_were_given_or_only_losses_are_asked():
    items = records(*[10] * 10)
    fixed = shares_of((1.0, 1e6), is_fixed=True)
    assert not any(tokens_of(fixed.of(items, step))[1] for step in range(9 * PROBE_STEPS))
    shares = shares_of((1.0, 100.0), measured=True)
    assert tokens_of(shares.of(items)) == [100, 0]


def test_shares_that_were_given_stay():
    shares = shares_of((1.0, 2.0), is_fixed=True)
    assert not any(shares.ended([10, 10], [1.0, 9.0]) for _ in range(20))
    shares.go_on({"paces": [1.0, 1.0], "trips": [0.0, 0.0]})
    assert shares.paces == [1.0, 2.0]


@pytest.mark.parametrize(
    "saved", [None, 3, {}, {"paces": [1.0], "trips": [0.0]}, {"paces": ["x", 1.0], "trips": [0, 0]}]
)
def test_what_was_saved_of_other_machines_is_measured_anew(saved):
    shares = shares_of()
    shares.go_on(saved)
    assert not shares.measured
    shares.go_on({"paces": [1.0, 3.0], "trips": [0.0, 0.5]})
    assert shares.document() == {"paces": [1.0, 3.0], "trips": [0.0, 0.5]}
