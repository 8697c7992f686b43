"""Sampling: the steps of transformers in its order, the distribution that was asked for, and seeds that repeat."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgellm.sampling.filters import filter_logits, penalize_repeated, select_candidates
from edgellm.sampling.logprobs import log_probabilities, log_probability
from edgellm.sampling.sampler import Sampler
from edgellm.settings import Sampling

VOCABULARY = 40
logits_rows = st.builds(
    lambda seed, spread, digits: np.round(
        np.random.RandomState(seed).standard_normal(VOCABULARY) * spread, digits
    ).astype(np.float32),
    st.integers(0, 10**6),
    st.sampled_from([0.1, 1.0, 3.0, 20.0]),
    st.sampled_from([0, 1, 6]),  # few digits make ties
)
filters = st.builds(
    lambda top_k, top_p, min_p: Sampling(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p),
    st.one_of(st.just(0), st.integers(1, VOCABULARY + 5)),
    st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
)


def probabilities(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def plainly_kept(logits, settings):
    """Which tokens stay, from the definitions, in float64; None where rounding may decide otherwise."""
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


@given(logits_rows, st.integers(0, VOCABULARY - 1))
def test_log_probabilities_are_log_softmax(logits, token):
    expected = np.log(probabilities(logits) + 1e-300)
    found = log_probabilities(mx.array(logits)[None])
    np.testing.assert_allclose(np.array(found)[0], expected, rtol=1e-5, atol=2e-5)
    one = log_probability(mx.array(logits)[None], mx.array([token]))
    assert one.item() == pytest.approx(expected[token], rel=1e-5, abs=2e-5)


def draw(settings, logits, count, prompt=(), lazy=True):
    sampler = Sampler(settings, prompt, len(logits), lazy=lazy)
    row = mx.array(np.asarray(logits, np.float32))[None]
    return [int(sampler(row).item()) for _ in range(count)]


def test_temperature_0_takes_the_likeliest_whatever_else_is_set():
    logits = np.random.RandomState(1).standard_normal(30)
    for temperature in (0.0, 1e-300, 1e-4):
        settings = Sampling(temperature=temperature, top_p=0.1, top_k=3, min_p=0.5, seed=3)
        for lazy in (True, False):
            assert draw(settings, logits, 5, lazy=lazy) == [int(logits.argmax())] * 5


@pytest.mark.parametrize("lazy", [True, False])
def test_seeds_repeat_and_differ(lazy):
    def drawn(seed):
        return draw(Sampling(temperature=1.0, seed=seed), np.zeros(1000), 20, lazy=lazy)

    texts = {seed: drawn(seed) for seed in (0, 1, 2**32, 2**64 - 1)}
    for seed, tokens in texts.items():
        assert drawn(seed) == tokens
        assert len(set(tokens)) > 15
    assert len({tuple(tokens) for tokens in texts.values()}) == 4
    assert drawn(None) != drawn(None)


def chi_square_limit(freedom):
    """What chi-square exceeds once in 10,000 times (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3


LOGITS = np.log([0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.03, 0.015, 0.005])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"temperature": 1.0}, 10),
        ({"temperature": 1.6}, 10),
        ({"temperature": 0.7, "top_k": 4}, 4),
        ({"temperature": 1.0, "top_p": 0.7}, 4),
        ({"temperature": 1.0, "min_p": 0.25}, 5),
    ],
)
@pytest.mark.parametrize("lazy", [True, False])
def test_the_tokens_drawn_have_the_distribution_that_was_asked_for(settings, kept, lazy):
    count = 2000
    shuffle = np.random.RandomState(2).permutation(10)
    weights = np.exp(LOGITS / settings["temperature"])
    weights[kept:] = 0
    expected = count * weights[shuffle] / weights.sum()
    within = draw(Sampling(seed=11, **settings), LOGITS[shuffle], count, lazy=lazy)
    across = [
        draw(Sampling(seed=seed, **settings), LOGITS[shuffle], 1, lazy=lazy)[0]
        for seed in range(count)
    ]
    for drawn in (within, across):
        counts = np.bincount(drawn, minlength=10)
        assert counts[expected == 0].sum() == 0
        live = expected > 0
        chi_square = ((counts[live] - expected[live]) ** 2 / expected[live]).sum()
        assert chi_square < chi_square_limit(kept - 1)


def test_the_penalty_looks_at_the_prompt_and_at_what_was_drawn():
    logits = [2.0, 1.9, 1.8, -1.0]
    assert draw(Sampling(repetition_penalty=1.5), logits, 4) == [0, 1, 2, 0]
    assert draw(Sampling(repetition_penalty=1.5), logits, 2, prompt=[0]) == [1, 2]
    assert draw(Sampling(repetition_penalty=0.5), logits, 3, prompt=[2]) == [2, 2, 2]
