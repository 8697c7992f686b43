"""Means of clients' changes: against the mean of the whole products, and NumPy's SVD of it."""

import numpy as np
import pytest

from edgellm.federation.aggregation import Contribution, mean_of_products, mean_of_ups

SHAPES = {"mlp.up_proj": (48, 20), "self_attn.q_proj": (20, 20)}
WEIGHTS = (3.0, 1.0, 8.0)


def draw(seed, rank, *, used=None, scale=1.0):
    """Two layers' factors, of which some directions are used."""
    draws = np.random.default_rng(seed)
    numbers = []
    for _ in range(2):
        own = {}
        for name, (rows, columns) in SHAPES.items():
            own[f"{name}.lora_A"] = draws.standard_normal((rank, columns)).astype(np.float32)
            up = scale * draws.standard_normal((rows, rank))
            up[:, rank if used is None else used :] = 0
            own[f"{name}.lora_B"] = up.astype(np.float32)
        numbers.append(own)
    return numbers


def products(numbers):
    return [
        {name: own[f"{name}.lora_B"].astype(np.float64) @ own[f"{name}.lora_A"] for name in SHAPES}
        for own in numbers
    ]


def mean_of(clients, weights=WEIGHTS):
    """The weighted mean of the products, as whole matrices."""
    made = [products(one) for one in clients]
    return [
        {
            name: sum(weight * own[layer][name] for weight, own in zip(weights, made, strict=True))
            / sum(weights)
            for name in SHAPES
        }
        for layer in range(2)
    ]


def contributions(clients, weights=WEIGHTS):
    return [Contribution(weight, numbers) for weight, numbers in zip(weights, clients, strict=True)]


def largest_difference(found, expected):
    return max(
        np.abs(own[name] - other[name]).max()
        for own, other in zip(found, expected, strict=True)
        for name in SHAPES
    )


def test_the_mean_of_products_is_exact_where_the_rank_has_room():
    clients = [draw(seed, 9, used=3) for seed in range(3)]
    mean = mean_of_products(contributions(clients), draw(9, 9, used=0), draw(8, 9))
    assert largest_difference(products(mean.numbers), mean_of(clients)) < 1e-5
    assert mean.lost < 1e-6


def test_factors_apart_have_another_mean():
    clients = [draw(seed, 9, used=3) for seed in range(3)]
    share = np.array(WEIGHTS) / sum(WEIGHTS)
    apart = [
        {
            name: sum(part * one[layer][name] for part, one in zip(share, clients, strict=True))
            for name in clients[0][layer]
        }
        for layer in range(2)
    ]
    expected = mean_of(clients)
    norm = np.sqrt(sum(np.square(one).sum() for own in expected for one in own.values()))
    away = [
        products(apart)[layer][name] - expected[layer][name]
        for layer in range(2)
        for name in SHAPES
    ]
    assert np.sqrt(sum(np.square(one).sum() for one in away)) > 0.2 * norm


def test_a_rank_without_room_gives_the_nearest_matrix_and_says_what_is_lost():
    before = draw(9, 4, scale=0.1)
    clients = [draw(seed, 4) for seed in range(3)]
    mean = mean_of_products(contributions(clients), before, draw(8, 4))
    expected, found, old = mean_of(clients), products(mean.numbers), products(before)
    left = whole = moved = 0.0
    for layer in range(2):
        for name in SHAPES:
            u, values, vt = np.linalg.svd(expected[layer][name])
            nearest = (u[:, :4] * values[:4]) @ vt[:4]
            assert np.abs(found[layer][name] - nearest).max() < 1e-5
            left += np.square(values[4:]).sum()
            whole += np.square(values).sum()
            moved += np.square(expected[layer][name] - old[layer][name]).sum()
    assert mean.lost == pytest.approx(np.sqrt(left / whole), rel=1e-5)
    assert mean.lost_of_round == pytest.approx(np.sqrt(left / moved), rel=1e-5)


def test_directions_that_the_mean_does_not_need_can_be_learned_again():
    clients = [draw(seed, 6, used=1) for seed in range(2)]
    spare = draw(8, 6)
    mean = mean_of_products(contributions(clients, (1.0, 1.0)), draw(9, 6, used=0), spare)
    for layer, own in enumerate(mean.numbers):
        for name in SHAPES:
            assert (own[f"{name}.lora_A"][2:] == spare[layer][f"{name}.lora_A"][2:]).all()
            assert not own[f"{name}.lora_B"][:, 2:].any()


def test_with_one_a_for_all_the_mean_of_bs_is_that_of_the_products():
    before = draw(9, 4)
    clients = [
        [
            {**own, **{name: new[name] for name in new if name.endswith("lora_B")}}
            for own, new in zip(before, draw(seed, 4), strict=True)
        ]
        for seed in range(3)
    ]
    ups = [
        [{name: own[name] for name in own if name.endswith("lora_B")} for own in numbers]
        for numbers in clients
    ]
    mean = mean_of_ups(contributions(ups), before)
    assert largest_difference(products(mean.numbers), mean_of(clients)) < 1e-5
    assert mean.lost == 0
