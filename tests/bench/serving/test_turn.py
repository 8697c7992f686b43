"""The arithmetic of a turn: tokens inside it, gaps, failures, and several turns as one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.bench.records.record import percentile
from edgellm.bench.serving.answer import Answer
from edgellm.bench.serving.turn import joined, thinned, turn_of


def answer(asked, *arrivals, tokens=None, failure=None, reason="length", prompt=None):
    return Answer(
        asked=asked,
        arrivals=list(arrivals),
        ended=arrivals[-1] if arrivals else asked,
        completion_tokens=tokens,
        prompt_tokens=prompt,
        finish_reason=reason,
        failure=failure,
    )


def test_figures_of_a_turn_are_those_of_its_answers():
    turn = turn_of(
        [
            answer(10.0, 10.5, 11.0, 12.0, prompt=7),
            answer(11.0, 11.25, 11.5, tokens=4, reason="stop"),
            answer(11.0, failure="HTTP 503"),
        ],
        10.0,
        12.0,
        client_seconds=0.5,
    )
    assert (turn.seconds, turn.tokens, turn.finished) == (2.0, 7, 2)
    assert turn.first_token_seconds == [0.5, 0.25]
    assert turn.latency_seconds == [2.0, 0.5]
    assert turn.answer_tokens == [3, 4]
    assert turn.gap_seconds == [0.5, 1.0, 0.25]
    assert turn.prompt_tokens == [7]
    assert turn.finish_reasons == {"length": 1, "stop": 1}
    assert turn.failures == {"HTTP 503": 1}
    assert (turn.counted_by_server, turn.client_seconds) == (1, 0.5)


def test_tokens_count_that_came_inside_the_turn():
    late = answer(0.0, 1.0, 2.0, 3.0, 4.0, tokens=8)
    turn = turn_of([late], 1.5, 3.5)
    assert turn.tokens == 4, "two pieces of two tokens"
    assert turn.finished == 0
    assert turn.latency_seconds == [4.0], "it ended whole all the same"


def test_tokens_of_a_stream_that_failed_were_served_too():
    turn = turn_of([answer(0.0, 1.0, 2.0, failure="timed out")], 0.0, 5.0)
    assert (turn.tokens, turn.finished, turn.latency_seconds) == (2, 0, [])


def test_turns_are_joined():
    turns = [
        turn_of([answer(0.0, 1.0), answer(0.0, failure="not JSON")], 0.0, 2.0, 0.25),
        turn_of([answer(5.0, 6.0, reason="stop"), answer(5.0, failure="not JSON")], 5.0, 8.0, 0.5),
    ]
    both = joined(turns)
    assert (both.seconds, both.tokens, both.client_seconds) == (5.0, 2, 0.75)
    assert both.failures == {"not JSON": 2}
    assert both.finish_reasons == Counter(length=1, stop=1)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=400), st.integers(100, 200))
def test_thinned_samples_keep_their_ends_and_nearly_their_percentiles(samples, most):
    kept = thinned(samples, most)
    assert len(kept) == min(most, len(samples))
    assert (min(kept), max(kept)) == (min(samples), max(samples))
    ordered = sorted(samples)
    for percent in (50, 95, 99):
        rank = ordered.index(percentile(samples, percent))
        near = ordered[max(0, rank - 4)], ordered[min(len(ordered) - 1, rank + 4)]
        assert near[0] <= percentile(kept, percent) <= near[1]


def test_few_samples_are_kept_in_their_order():
    assert thinned([3.0, 1.0, 2.0]) == (3.0, 1.0, 2.0)


def test_an_answer_without_a_count_has_a_token_a_piece():
    assert answer(0.0, 1.0, 2.0).tokens == 2
    assert answer(0.0, 1.0, 2.0, tokens=5).tokens == 5
    assert pytest.approx(turn_of([], 0.0, 1.0).seconds) == 1.0
