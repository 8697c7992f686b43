"""Filters: the steps of transformers in its order, in MLX and in NumPy."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.logits import VOCABULARY, logits_rows, probabilities

from edgellm.sampling.filters import filter_logits, penalize_repeated, select_candidates
from edgellm.settings import Sampling

filters = st.builds(
    lambda top_k, top_p, min_p: Sampling(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p),
    st.one_of(st.just(0), st.integers(1, VOCABULARY + 5)),
    st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
)


def plainly_kept(logits, settings):
    """Which tokens stay by the definitions, in float64; None where rounding may decide."""
    kept = np.ones(len(logits), bool)
    if settings.top_k:
        kept &= logits >= np.sort(logits)[::-1][min(settings.top_k, len(logits)) - 1]
    if settings.top_p < 1:
        share = probabilities(np.where(kept, logits, -np.inf))
        order = np.argsort(-share, kind="stable")
        before = np.concatenate([[0], np.cumsum(share[order])[:-1]])
        if (np.abs(before - settings.top_p) < 1e-5).any():
            return None
        last = share[order][before < settings.top_p][-1]
        if (share == last).sum() > 1:  # of equally likely tokens any may be the last
            return None
        kept[order] &= before < settings.top_p
    if settings.min_p:
        share = probabilities(logits)
        if (np.abs(share / share.max() - settings.min_p) < 1e-5).any() and settings.min_p < 1:
            return None
        kept &= share >= settings.min_p * share.max() * (1 - 1e-9)
    return kept


@given(logits_rows, filters)
def test_the_tokens_that_stay_are_those_of_the_definitions(logits, settings):
    expected = plainly_kept(logits, settings)
    assume(expected is not None)
    found = np.array(filter_logits(mx.array(logits)[None], settings))[0]
    assert np.array_equal(found > -np.inf, expected)
    assert np.array_equal(found[expected], logits[expected])
    tokens, weights = select_candidates(logits, settings)
    assert sorted(tokens) == list(np.flatnonzero(expected))
    np.testing.assert_allclose(
        weights / weights.sum(), probabilities(logits[tokens]), rtol=1e-5, atol=1e-30
    )


@given(logits_rows, filters)
def test_both_forms_keep_the_same_tokens_in_the_same_order_of_filters(logits, settings):
    """Where only rounding could decide otherwise, ``plainly_kept`` says so."""
    assume(plainly_kept(logits, settings) is not None)
    masked = np.array(filter_logits(mx.array(logits)[None], settings))[0]
    selected, weights = select_candidates(logits, settings)
    assert sorted(selected) == list(np.flatnonzero(masked > -np.inf))
    assert weights.max() == 1
    np.testing.assert_allclose(
        weights / weights.sum(), probabilities(masked)[selected], rtol=1e-5, atol=1e-30
    )


@given(logits_rows, st.integers(0, 10**6), st.sampled_from([0.6, 1.4]))
def test_both_forms_of_the_penalty_are_the_same_bits(logits, seed, penalty):
    seen = np.random.RandomState(seed).rand(VOCABULARY) < 0.3
    theirs = penalize_repeated(mx.array(logits)[None], mx.array(seen)[None], penalty)
    assert np.array_equal(penalize_repeated(logits, seen, penalty), np.array(theirs)[0])
    assert penalize_repeated(logits, None, penalty) is logits


@given(logits_rows, filters)
def test_the_likeliest_token_always_stays(logits, settings):
    found = np.array(filter_logits(mx.array(logits)[None], settings))[0]
    assert found.max() == logits.max()
    assert logits[select_candidates(logits, settings)[0]].max() == logits.max()


@pytest.mark.torch
@given(
    logits_rows,
    filters,
    st.sampled_from([0.3, 1.0, 1.7]),
    st.sampled_from([0.6, 1.0, 1.4]),
    st.integers(0, 10**6),
)
def test_the_steps_are_those_of_transformers_in_its_order(
    logits, settings, temperature, penalty, seed
):
    import torch
    from transformers.generation import logits_process as theirs

    seen = np.random.RandomState(seed).randint(0, VOCABULARY, 12)
    ids, scores = torch.tensor(seen)[None], torch.tensor(logits)[None]
    if penalty != 1:
        scores = theirs.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    scores = (
        theirs.TemperatureLogitsWarper(temperature)(ids, scores) if temperature != 1 else scores
    )
    assume(plainly_kept(scores[0].numpy(), settings) is not None)
    if settings.top_k:
        scores = theirs.TopKLogitsWarper(settings.top_k)(ids, scores)
    if settings.top_p < 1:
        scores = theirs.TopPLogitsWarper(settings.top_p)(ids, scores)
    if settings.min_p:
        scores = theirs.MinPLogitsWarper(settings.min_p)(ids, scores)
    mask = np.zeros((1, VOCABULARY), bool)
    mask[0, seen] = True
    ours = filter_logits(
        penalize_repeated(mx.array(logits)[None], mx.array(mask), penalty) / temperature, settings
    )
    expected = scores.numpy()
    assert np.array_equal(np.array(ours) > -np.inf, expected > -np.inf)
    np.testing.assert_allclose(
        np.array(ours)[expected > -np.inf], expected[expected > -np.inf], rtol=1e-5, atol=1e-6
    )
