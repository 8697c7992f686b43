"""Clipping and normal noise, which a client applies to an update before it sends it.

The Gaussian mechanism of local differential privacy, for a client's data as a whole: the update u
becomes ``u min(1, C / |u|) + N(0, (z C)^2)``. Two sets of data give clipped updates that lie at
most 2 C apart, so a round is (2 / z)-GDP, and T rounds are ``2 sqrt(T) / z``-GDP however later ones
depend on earlier ones (Dong, Roth & Su 2022, Gaussian differential privacy, arXiv:1905.02383);
epsilon follows from that exactly (Balle & Wang 2018, arXiv:1805.06530, theorem 8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgellm.converters.tensors.floats import Floats
from edgellm.errors import ConfigError
from edgellm.setting_values import number

DELTA = 1e-5
"""The usual chance that epsilon does not hold."""

_LARGE = 35.0
"""Deviations beyond which ``erfc`` is too small for a float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """How an update is blurred.

    Attributes:
        clip: C, its norm at most.
        noise: z, the deviation of the noise over C; 0: clipped alone, which proves nothing.
        delta: the chance that epsilon does not hold.
    """

    clip: float
    noise: float = 0.0
    delta: float = DELTA

    def __post_init__(self) -> None:
        """Check that all are numbers. Raises ConfigError."""
        number("clip_update", self.clip, 0, 1e30, low_excluded=True)
        number("noise", self.noise, 0, 1e6)
        number("delta", self.delta, 0, 0.5, low_excluded=True)
        if 0 < self.noise < 1e-3:
            raise ConfigError(
                f"noise of {self.noise:g} times the clipped norm hides nothing",
                hint="use --noise 1 or more, or leave it out",
            )

    def blurred(self, update: Floats) -> Floats:
        """Return an update as it is sent; its noise is drawn anew each time."""
        norm = float(np.linalg.norm(update.astype(np.float64)))
        factor = min(1.0, self.clip / norm) if norm else 1.0
        sent = update.astype(np.float64) * factor
        if self.noise:
            # without a seed: from the system's own source of randomness
            draws = np.random.default_rng().standard_normal(len(update))
            sent += self.noise * self.clip * draws
        return sent.astype(np.float32)

    def epsilon(self, rounds: int) -> float | None:
        """Return epsilon after so many updates were sent; None where nothing is proven."""
        if not self.noise or not rounds:
            return None
        return epsilon_of(2 * math.sqrt(rounds) / self.noise, self.delta)


def epsilon_of(mu: float, delta: float) -> float:
    """Return the least epsilon of a mu-GDP mechanism, rounded up."""
    high = 1.0
    while _delta_of(mu, high) > delta:
        high *= 2
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        if _delta_of(mu, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _delta_of(mu: float, epsilon: float) -> float:
    """Return the delta of a mu-GDP mechanism at this epsilon, or more."""
    first = _tail(epsilon / mu - mu / 2)
    far = epsilon / mu + mu / 2
    if far > _LARGE:  # what is left out would only lessen it
        return first
    return first - math.exp(epsilon + math.log(_tail(far)))


def _tail(deviations: float) -> float:
    """Return the chance of a normal draw above this."""
    return math.erfc(deviations / math.sqrt(2)) / 2
