"""Log-probabilities are those of the softmax."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logits import VOCABULARY, logits_rows, probabilities

from edgellm.sampling.logprobs import log_probabilities, logprobs_of


@given(logits_rows, st.integers(0, VOCABULARY - 1))
def test_log_probabilities_are_log_softmax(logits, token):
    expected = np.log(probabilities(logits) + 1e-300)
    found = log_probabilities(mx.array(logits)[None])
    np.testing.assert_allclose(np.array(found)[0], expected, rtol=1e-5, atol=2e-5)
    for lazy in (True, False):
        one = logprobs_of(mx.array(logits)[None], mx.array([token]), 3, lazy=lazy).read()[0]
        assert one.logprob == pytest.approx(expected[token], rel=1e-5, abs=2e-5)
        values = [value for _, value in one.top]
        assert values == sorted(values, reverse=True)
        assert values[-1] == pytest.approx(np.sort(expected)[-3], rel=1e-5, abs=2e-5)
        for place, value in one.top:
            assert value == pytest.approx(expected[place], rel=1e-5, abs=2e-5)
