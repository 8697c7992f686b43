"""What speculation measures: rates that fade, and a line through the seconds of steps."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgellm.speculation.acceptance import (
    FADE,
    MIN_FIRST_ROW,
    OUTLIER,
    PRIOR_WEIGHT,
    AcceptanceRate,
    DraftCost,
    StepCost,
)


def test_before_anything_was_measured_the_assumption_counts():
    rate = AcceptanceRate([0.1, 0.5])
    assert (rate.of(0), rate.of(1), rate.mean) == (pytest.approx(0.1), 0.5, pytest.approx(0.3))
    cost = StepCost(0.15)
    assert [cost.seconds(rows) for rows in (1, 3)] == [1.0, pytest.approx(1.3)]
    assert DraftCost().seconds_each == 0


def test_a_rate_is_what_was_observed_of_its_bucket():
    rate = AcceptanceRate([0.5, 0.5])
    for number in range(300):
        rate.observe(0, accepted=number % 4 == 0)
        rate.observe(1, accepted=True)
    assert rate.of(0) == pytest.approx(0.25, abs=0.05)
    assert rate.of(1) == pytest.approx(1.0, abs=0.01)
    for _ in range(100):
        rate.observe(1, accepted=False)
    assert rate.of(1) < 0.03
    assert rate.mean < 0.01


@given(
    st.lists(st.tuples(st.integers(2, 16), st.floats(1.0, 1.9)), min_size=2, max_size=40),
    st.sampled_from([0.01, 0.15, 1.0]),
)
def test_seconds_are_those_of_the_weighted_line_with_a_prior(steps, extra_row_cost):
    """Against the same least-squares problem, solved by NumPy; all steps have several rows."""
    cost = StepCost(extra_row_cost)
    cost.observe(2, 1.0)  # in which kernels are compiled
    for number, (rows, seconds) in enumerate(steps):
        assume(number < 2 or seconds <= OUTLIER * cost.seconds(rows))  # else it would not count
        cost.observe(rows, seconds)
    x = np.array([rows - 1 for rows, _ in steps], float)
    y = np.array([seconds for _, seconds in steps])
    weights = FADE ** np.arange(len(steps))[::-1]
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    prior_slope = extra_row_cost * mean_y / (1 + extra_row_cost * mean_x)
    # rows of the problem: a measurement each, and the slope's own
    matrix = np.stack([np.append(np.sqrt(weights), 0), np.append(np.sqrt(weights) * x, 0)], axis=1)
    matrix[-1, 1] = np.sqrt(PRIOR_WEIGHT)
    wanted = np.append(np.sqrt(weights) * y, np.sqrt(PRIOR_WEIGHT) * prior_slope)
    first, slope = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    assume(slope >= 0 and first >= MIN_FIRST_ROW * mean_y)  # else these bounds hold instead
    for rows in (1, 4, 16):
        assert cost.seconds(rows) == pytest.approx(first + slope * (rows - 1), rel=1e-6)


def test_one_slow_step_counts_as_an_outlier():
    steady, disturbed = StepCost(0.1), StepCost(0.1)
    for number in range(50):
        steady.observe(1, 1.0)
        disturbed.observe(1, 1000.0 if number == 40 else 1.0)
    assert steady.seconds(1) == pytest.approx(1.0)
    assert disturbed.seconds(1) < 1 + (OUTLIER - 1) / 10
    draft = DraftCost()
    for seconds in (0.1, 0.1, 50.0):
        draft.observe(1, seconds)
    assert 0.1 < draft.seconds_each < 0.2


def test_what_several_rows_cost_is_not_forgotten_in_steps_of_one():
    cost = StepCost(1.0)
    for _ in range(30):
        cost.observe(1, 1.0)
        cost.observe(8, 1.7)
    before = cost.seconds(8)
    for _ in range(1000):
        cost.observe(1, 1.0)
    assert before == pytest.approx(1.7, rel=0.1)
    assert cost.seconds(8) == pytest.approx(before, rel=0.02)
