"""The study of speculation: which texts repeat themselves, which steps stand for all, a replay."""

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.bench.studies.replay import Recording, Replay, VerifyAll
from edgellm.bench.studies.speculation import Opener, measure, repeated_fraction, spread
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.hub.resolve import BUNDLED
from edgellm.settings import LoadSettings, Sampling
from edgellm.speculation.recycling import RecyclingDrafter


def test_a_text_repeats_itself_where_four_tokens_came_before():
    assert repeated_fraction([1, 2, 3, 4], [1, 2, 3, 4]) == 0.25
    assert repeated_fraction([9], [1, 2, 3, 4] * 2) == pytest.approx(1 / 8)
    assert repeated_fraction([9], list(range(10, 20))) == 0


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=30))
def test_the_steps_that_stand_for_all_are_among_them(steps):
    chosen = spread(steps, 5)
    assert len(chosen) == 5
    assert set(chosen) <= set(steps)
    if len(steps) % 5 == 0:
        rights = sorted(right for _, right in steps)
        width = len(steps) // 5
        assert sorted(right for _, right in chosen) == rights[width // 2 :: width]


def test_a_replay_errs_where_the_pattern_says():
    replay = Replay(list(range(100, 120)), cycle([(3, 2), (2, 0)]))
    replay.begin(range(5), Sampling())
    assert [token.token for token in replay.propose()] == [105, 106, 107 ^ 1]
    replay.add(105)
    assert [token.token for token in replay.propose()] == [106 ^ 1, 107 ^ 1]
    replay.active = False
    assert list(replay.propose()) == []


def test_all_tokens_of_a_replay_are_verified_up_to_the_limit():
    replay = Replay(list(range(20)), cycle([(5, 5)]))
    speculation = VerifyAll(replay, max_draft_tokens=4, extra_row_cost=0.0)
    speculation.begin(range(3), Sampling())
    assert [token.token for token in speculation.propose(8)] == [3, 4, 5, 6]
    assert [token.token for token in speculation.propose(2)] == [3, 4]


def test_a_recording_counts_rows_and_tokens_of_each_step():
    recording = Recording(Replay([0] * 9, cycle([(1, 1)])), max_draft_tokens=4, slow=True)
    recording.begin([1, 2], Sampling())
    recording.add(7)
    recording.record_step(3, 0.1)
    recording.add(8)
    recording.add(9)
    assert recording.steps == [[0, 1], [3, 2]]


def test_texts_with_draft_tokens_are_those_of_plain_decoding():
    opener = Opener(read_checkpoint(BUNDLED / "stories"), LoadSettings())
    prompts = ["The sun is hot. The ice is cold. " * 4]
    figures, steps = measure(opener, prompts, 24, RecyclingDrafter, slow=True)
    assert figures["equal_texts"] == figures["texts_counted"] == 1
    assert figures["tokens"] == sum(tokens for _, tokens in steps) - 1
    assert figures["tokens_per_weight_pass"] >= 1
