"""A sampler draws from the distribution that was asked for, and equal seeds draw equal tokens."""

import mlx.core as mx
import numpy as np
import pytest
from support.chi_square import close_to_chance

from edgellm.sampling.distribution import Distribution
from edgellm.sampling.sampler import Sampler
from edgellm.settings import Sampling


def draw(settings, logits, count, prompt=(), lazy=True):
    sampler = Sampler(settings, prompt, len(logits), lazy=lazy)
    row = mx.array(np.asarray(logits, np.float32))[None]
    return [sampler(row).read() for _ in range(count)]


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
    chances = weights[shuffle] / weights.sum()
    within = draw(Sampling(seed=11, **settings), LOGITS[shuffle], count, lazy=lazy)
    across = [
        draw(Sampling(seed=seed, **settings), LOGITS[shuffle], 1, lazy=lazy)[0]
        for seed in range(count // 4)
    ]
    for drawn in (within, across):
        assert close_to_chance(np.bincount(drawn, minlength=10), chances)


def test_the_penalty_looks_at_the_prompt_and_at_what_was_drawn():
    logits = [2.0, 1.9, 1.8, -1.0]
    assert draw(Sampling(repetition_penalty=1.5), logits, 4) == [0, 1, 2, 0]
    assert draw(Sampling(repetition_penalty=1.5), logits, 2, prompt=[0]) == [1, 2]
    assert draw(Sampling(repetition_penalty=0.5), logits, 3, prompt=[2]) == [2, 2, 2]


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, seed=1),
        Sampling(temperature=0.7, top_k=5, repetition_penalty=1.5, seed=1),
        Sampling(temperature=1.5, top_p=0.8, seed=1),
    ],
)
def test_verified_tokens_are_drawn_as_without_drafts(sampling, drawn):
    """A chi-square test at 0.001 over 15,000 draws from 8 tokens; a third where each is slow."""
    count, random = 15_000, np.random.default_rng(5)
    if sampling.repetition_penalty != 1:
        count = 5_000
    logits = mx.array([[1.5, 0.2, -0.3, 1.1, -2.0, 0.6, 0.0, -0.9]])
    quotas = np.array([0.05, 0.3, 0.1, 0.0, 0.25, 0.1, 0.2, 0.0])
    proposal = Distribution(np.arange(8)[::-1].copy(), quotas[::-1].copy())
    counts, agreed = np.zeros(8), 0
    sampler = Sampler(sampling, [0, 3], 8, lazy=False)
    seen = None if sampler.seen is None else np.array(sampler.seen)
    for uniform in random.random(count):
        if seen is not None:
            sampler.seen = mx.array(seen)
        draft_token = proposal.sample(uniform) if drawn else 1
        token = sampler.verify(logits, draft_token, proposal if drawn else None)
        counts[token] += 1
        agreed += token == draft_token
    row = np.array(logits[0], dtype=np.float64)
    if seen is not None:
        row = np.where(seen[0], np.where(row > 0, row / 1.5, row * 1.5), row)
    chances = np.exp(row / sampling.temperature)
    if sampling.top_k:
        chances[np.argsort(chances)[: -sampling.top_k]] = 0
    if sampling.top_p < 1:
        order = np.argsort(-chances)
        shares = np.cumsum(chances[order]) / chances.sum()
        chances[order[1 + np.searchsorted(shares, sampling.top_p) :]] = 0
    chances /= chances.sum()
    assert close_to_chance(counts, chances)
    best = np.minimum(chances, quotas).sum() if drawn else chances[1]
    assert abs(agreed / count - best) < 1.5 / count**0.5, (
        "draft tokens are taken as often as rejection sampling can take them"
    )


@pytest.mark.parametrize("lazy", [True, False])
def test_penalties_of_openai_count_new_tokens_alone(lazy):
    """Their formula, term by term: logit - count * frequency - (count > 0) * presence."""
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    prompt, row = [3, 3, 3], [0.1, -0.2, 0.3, 1.9, 1.6, 1.0, 0.0, -0.9]
    sampler = Sampler(sampling, prompt, 8, lazy=lazy)
    drawn = []
    for _ in range(12):
        terms = [
            logit - drawn.count(token) * 0.25 - (token in drawn) * 0.5
            for token, logit in enumerate(row)
        ]
        drawn.append(sampler(mx.array([row])).read())
        assert drawn[-1] == int(np.argmax(np.array(terms, np.float32)))
    assert len(set(drawn)) > 2
    sampler.go_on([*prompt, *drawn[:5]], drawn=5)
    assert [sampler(mx.array([row])).read() for _ in drawn[5:]] == drawn[5:]
    assert not sampler.plain_greedy
