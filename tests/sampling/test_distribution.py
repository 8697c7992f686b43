"""Distributions: what is drawn from them, and what is left after a refused draft token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.sampling.distribution import Distribution

shares = st.lists(st.integers(0, 9), min_size=6, max_size=6).filter(any)


def distribution(weights, order):
    tokens = np.random.RandomState(order).permutation(6)
    weights = np.array(weights, np.float64)
    return Distribution(tokens, weights[tokens] / weights.sum())


def dense(found):
    return np.array([found.probability(token) for token in range(6)])


@given(shares, shares, st.integers(0, 9))
def test_the_residual_is_what_the_other_one_lacks(weights, other, order):
    target, proposal = distribution(weights, order), distribution(other, order + 1)
    expected = np.maximum(dense(target) - dense(proposal), 0)
    if expected.sum() < 1e-12:
        expected = dense(target)
    np.testing.assert_allclose(
        dense(target.residual(proposal)), expected / expected.sum(), atol=1e-9
    )


def test_the_residual_where_neither_has_all_tokens_of_the_other():
    target = Distribution(np.array([7, 2]), np.array([0.5, 0.5]))
    proposal = Distribution(np.array([5, 2, 1]), np.array([0.5, 0.25, 0.25]))
    left = target.residual(proposal)
    assert left.probability(7) == pytest.approx(2 / 3)
    assert left.probability(2) == pytest.approx(1 / 3)
    assert left.probability(5) == 0


@given(shares, st.integers(0, 9), st.floats(0, 1, exclude_max=True))
def test_a_token_that_cannot_be_drawn_never_is(weights, order, uniform):
    one = distribution(weights, order)
    assert one.probability(one.sample(uniform)) > 0


def test_a_number_draws_the_token_in_whose_share_it_falls():
    one = Distribution(np.array([4, 9, 3]), np.array([0.5, 0.25, 0.25]))
    drawn = [one.sample(uniform) for uniform in (0.0, 0.49, 0.5, 0.74, 0.75, 0.999)]
    assert drawn == [4, 4, 9, 9, 3, 3]
