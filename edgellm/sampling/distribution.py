"""Probabilities of tokens: what draft tokens are drawn from and verified against."""

# V vocabulary, N tokens that can be drawn

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.sampling.filters import Tokens, Weights, select_candidates
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True)
class Distribution:
    """The tokens (N,) that can be drawn, and the probability (N,) of each."""

    tokens: Tokens
    probabilities: Weights

    def probability(self, token: int) -> float:
        """Return the probability of a token; 0 for one that cannot be drawn."""
        return float(self.probabilities[self.tokens == token].sum())

    def sample(self, uniform: float) -> int:
        """Return the token that a number ``uniform`` of [0, 1) draws."""
        return draw_token(self.tokens, self.probabilities, uniform)

    def residual(self, other: Distribution) -> Distribution:
        """Return what to draw from after a token drawn from ``other`` was refused.

        That is max(0, p - q), normalized, with p these probabilities and q those of ``other``
        (Leviathan et al. 2023, arXiv:2211.17192). Where nothing is left, which only rounding can
        do, these probabilities stay as they are.
        """
        order = np.argsort(other.tokens)
        places = np.searchsorted(other.tokens[order], self.tokens)
        # a token above all of the other ones has a place behind the end
        matches = order[np.minimum(places, len(order) - 1)]
        is_shared = other.tokens[matches] == self.tokens
        taken = np.where(is_shared, other.probabilities[matches], 0.0)
        rest = np.maximum(self.probabilities - taken, 0.0)
        total = rest.sum()
        if total <= 0:
            return self
        return Distribution(self.tokens, rest / total)


def distribution_of(logits: npt.NDArray[np.float32], settings: Sampling) -> Distribution:
    """Return what the next token is drawn from after logits (V,).

    Args:
        logits: of one position, after penalties.
        settings: how tokens are drawn; the temperature is above 0.
    """
    tokens, weights = select_candidates(logits / np.float32(settings.temperature), settings)
    return Distribution(tokens, weights / weights.sum())


def draw_token(tokens: Tokens, weights: Weights, uniform: float) -> int:
    """Return the token that a number ``uniform`` of [0, 1) draws from N of them.

    Weights (N,) are in proportion to probabilities. This is inverse transform sampling: the first
    token at which the sum of weights passes ``uniform`` times all of them.
    """
    ends = np.cumsum(weights)
    place = int(np.searchsorted(ends, uniform * ends[-1], side="right"))
    return int(tokens[min(place, len(tokens) - 1)])  # rounding may reach the very end
