"""Groups take turns where that is measured to be faster than all sequences at once."""

from itertools import count

import pytest
from support.engines import open_context

from edgellm.engine.engine import Engine
from edgellm.engine.turns import AGAIN_STEPS, TRIED_ROUNDS, TurnPace

PROMPTS = [[5 + place, 6, 7, 8, 9] for place in range(8)]


class TwoMachines:
    """Layers of which each half takes a time that is only counted: here, and on another machine.

    ``seconds`` says how much, for so many tokens at once.
    """

    streams_weights = takes_trees = async_compute = False
    stages = 2

    def __init__(self, layers, seconds):
        self._layers = layers
        self._seconds = seconds
        self.max_exact_rows = layers.max_exact_rows
        self.now = 0.0
        self._other_is_free_at = 0.0

    def run(self, states, spans, **how):
        return self.launch(states, spans, **how).results()

    def launch(self, states, spans, **how):
        states = list(states)
        seconds = self._seconds(sum(state.shape[1] for state in states))
        self.now += seconds
        self._other_is_free_at = max(self.now, self._other_is_free_at) + seconds
        return _Launched(
            self, self._other_is_free_at, lambda: self._layers.run(states, spans, **how)
        )

    def close(self):
        self._layers.close()


class _Launched:
    def __init__(self, machines, through_at, compute):
        self._machines, self._through_at, self._compute = machines, through_at, compute

    def results(self):
        self._machines.now = max(self._machines.now, self._through_at)
        return self._compute()

    def close(self):
        pass


def rates(context, streams):
    """Tokens a second of so many texts: of steps with a group each, and of those with all."""
    found = {}
    with Engine(context) as engine:
        for prompt in PROMPTS[:streams]:
            engine.submit(prompt, max_tokens=30)
        while not engine.idle:
            before = context.model.layers.now
            tokens = len(engine.step())
            if tokens and engine.running == streams:
                found.setdefault(tokens, []).append(context.model.layers.now - before)
    # the first step of a group finds nobody under way
    return {tokens: tokens / min(seconds) for tokens, seconds in found.items()}


@pytest.fixture
def context(tiny_folder):
    with open_context(tiny_folder("llama-2", seed=1), context=64) as opened:
        opened.model.whole_pass = None
        object.__setattr__(opened, "end_tokens", frozenset())
        yield opened


def test_two_streams_are_nearly_twice_as_fast_as_one(context):
    context.model.layers = TwoMachines(context.model.layers, lambda tokens: 1.0)
    assert rates(context, 1)[1] == pytest.approx(0.5)
    both = rates(context, 2)
    assert both[1] == pytest.approx(1.0)  # in turns
    assert both[2] == pytest.approx(1.0)  # together: the weights are passed over once for both


def test_groups_are_twice_as_fast_as_all_where_arithmetic_is_the_limit(context):
    context.model.layers = TwoMachines(context.model.layers, lambda tokens: 1.0 * tokens)
    assert rates(context, 1)[1] == pytest.approx(0.5)
    eight = rates(context, 8)
    assert eight[8] == pytest.approx(0.5)
    assert eight[4] == pytest.approx(1.0)


def taken(pace, seconds_of, steps):
    """The ways of so many steps, each of which lasts as long as ``seconds_of`` its way says.

    The first step in groups after all went together is not observed: nobody is under way yet.
    """
    ways = [1]
    for _ in range(steps):
        ways.append(pace.groups)
        if not ways[-2] < ways[-1]:
            pace.observe(ways[-1], 12 // ways[-1], seconds_of(ways[-1]))
    return ways[1:]


def tried(groups):
    return 1 + groups * TRIED_ROUNDS + TRIED_ROUNDS


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("faster", ["groups", "together"])
def test_the_faster_way_is_taken_after_both_were_tried(groups, faster):
    pace = TurnPace(groups)
    best = groups if faster == "groups" else 1

    def seconds_of(way):
        return (1.0 if way == best else 1.2) / way

    ways = taken(pace, seconds_of, 3 * tried(groups))
    first, later = ways[: tried(groups)], ways[tried(groups) :]
    assert (first.count(1), first.count(groups)) == (TRIED_ROUNDS, 1 + groups * TRIED_ROUNDS)
    assert set(later) == {best}


def test_all_go_together_where_groups_gain_next_to_nothing():
    pace = TurnPace(2)
    assert taken(pace, {1: 1.0, 2: 0.49}.__getitem__, 2 * tried(2))[-1] == 1


def test_what_disturbs_some_steps_is_not_counted():
    pace, steps = TurnPace(2), count()

    def seconds_of(way):
        return (10.0 if next(steps) % 7 == 0 else 1.0) / way if way == 2 else 1.2

    assert set(taken(pace, seconds_of, 4 * tried(2))[-tried(2) :]) == {2}


def test_groups_of_unequal_sizes_are_weighed_by_their_tokens():
    pace, sizes = TurnPace(2), count()
    for _ in range(tried(2)):
        way = pace.groups
        # three sequences in the time of two together, or one and two in turn, each as long as two
        tokens = 3 if way == 1 else 1 + next(sizes) % 2
        pace.observe(way, tokens, 1.0 if way == 1 else 0.52)
    assert pace.groups == 1  # 0.35 s for a token in groups, 0.33 s together


@pytest.mark.parametrize("faster", [1, 2])
def test_the_slower_way_is_tried_again_later(faster):
    pace, slower = TurnPace(2), 3 - faster
    before, after = {2: 0.4, 1: 1.0}, {2: 0.6, 1: 1.0}
    if faster == 1:
        before, after = after, before
    ways = taken(pace, before.__getitem__, AGAIN_STEPS - 1)
    assert set(ways[tried(2) :]) == {faster}
    ways = taken(pace, before.__getitem__, 3 * AGAIN_STEPS)
    # tried again now and then, for as long as it takes
    assert 0 < ways.count(slower) <= 3 * tried(2)
    ways = taken(pace, after.__getitem__, 3 * AGAIN_STEPS)
    assert set(ways[-AGAIN_STEPS // 2 :]) == {slower}
