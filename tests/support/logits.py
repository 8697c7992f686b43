"""Random logits of one position, as hypothesis draws them."""

import numpy as np
from hypothesis import strategies as st

VOCABULARY = 40
logits_rows = st.builds(
    lambda seed, spread, digits: np.round(
        np.random.RandomState(seed).standard_normal(VOCABULARY) * spread, digits
    ).astype(np.float32),
    st.integers(0, 10**6),
    st.sampled_from([0.1, 1.0, 3.0, 20.0]),
    st.sampled_from([0, 1, 6]),  # few digits make ties
)


def probabilities(logits):
    """The softmax of logits (V,), in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()
