"""What a client sends is clipped and blurred; epsilon is that of an integral."""

import numpy as np
import pytest

from edgellm.errors import ConfigError
from edgellm.federation.privacy import Privacy, epsilon_of


def delta_by_integral(mu, epsilon):
    """The delta of N(mu, 1) beside N(0, 1): the integral of max(0, p - e^epsilon q)."""
    at = np.linspace(-40, 60, 2_000_001)
    p = np.exp(-np.square(at - mu) / 2) / np.sqrt(2 * np.pi)
    q = np.exp(epsilon - np.square(at) / 2) / np.sqrt(2 * np.pi)
    return np.maximum(p - q, 0).sum() * (at[1] - at[0])


@pytest.mark.parametrize(("mu", "delta"), [(0.1, 1e-5), (1.0, 1e-5), (4.0, 1e-3)])
def test_epsilon_is_that_of_the_integral(mu, delta):
    epsilon = epsilon_of(mu, delta)
    assert delta_by_integral(mu, epsilon) == pytest.approx(delta, rel=1e-3)


def test_rounds_compose_as_the_root_of_their_number():
    privacy = Privacy(clip=0.5, noise=2.0)
    assert privacy.epsilon(1) == epsilon_of(1.0, 1e-5)
    assert privacy.epsilon(9) == epsilon_of(3.0, 1e-5)
    assert privacy.epsilon(0) is None
    assert Privacy(clip=0.5).epsilon(3) is None  # without noise nothing is proven


def test_little_noise_gives_an_epsilon_that_is_large_and_finite():
    assert 1e3 < epsilon_of(200.0, 1e-5) < 1e5


def test_an_update_is_clipped_and_small_ones_are_not_made_larger():
    update = np.full(400, 0.5, np.float32)  # of norm 10
    sent = Privacy(clip=2.0).blurred(update)
    assert np.linalg.norm(sent) == pytest.approx(2.0, rel=1e-6)
    np.testing.assert_allclose(sent, update / 5, rtol=1e-6)
    assert (Privacy(clip=20.0).blurred(update) == update).all()
    assert not Privacy(clip=2.0).blurred(np.zeros(3, np.float32)).any()


def test_noise_has_the_deviation_that_is_told_and_is_drawn_anew():
    privacy, update = Privacy(clip=2.0, noise=3.0), np.zeros(40_000, np.float32)
    first, second = privacy.blurred(update), privacy.blurred(update)
    assert first.std() == pytest.approx(6.0, rel=0.05)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


@pytest.mark.parametrize("wrong", [{"clip": 0}, {"noise": 1e-4}, {"delta": 0}, {"delta": 0.7}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        Privacy(**{"clip": 1.0, **wrong})
