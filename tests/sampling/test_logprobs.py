"""Log-probabilities are those of the softmax."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logits import VOCABULARY, logits_rows, probabilities

from edgellm.sampling.logprobs import log_probabilities, log_probability


@given(logits_rows, st.integers(0, VOCABULARY - 1))
def test_log_probabilities_are_log_softmax(logits, token):
    expected = np.log(probabilities(logits) + 1e-300)
    found = log_probabilities(mx.array(logits)[None])
    np.testing.assert_allclose(np.array(found)[0], expected, rtol=1e-5, atol=2e-5)
    one = log_probability(mx.array(logits)[None], mx.array([token]))
    assert one.item() == pytest.approx(expected[token], rel=1e-5, abs=2e-5)
