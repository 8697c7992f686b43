"""Compare the logits of two models: divergence, agreement, and perplexity of each."""

# L tokens, V words of the vocabulary

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import BackendError

BLOCK = 32
"""Tokens whose logits are compared at once, in float64."""

MAX_LOSS = 700.0
"""Mean loss whose exponential is still a float64."""

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class LogitComparison:
    """Sums over the logits of a reference and another model for the same tokens.

    Attributes:
        tokens: compared so far.
        predicted: those of them that the text goes on after, within a window.
        max_difference: the largest of all logits.
        kl_sum: of Kullback-Leibler divergences from the reference, in nats.
        kl_max: the largest of them.
        agreed: tokens after which both hold the same word for the likeliest.
        reference_loss: negative log-likelihood of the text by the reference, in nats.
        loss: the same by the other model.
    """

    tokens: int = 0
    predicted: int = 0
    max_difference: float = 0.0
    kl_sum: float = 0.0
    kl_max: float = 0.0
    agreed: int = 0
    reference_loss: float = 0.0
    loss: float = 0.0

    def add(
        self, reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32], ids: Sequence[int]
    ) -> None:
        """Compare logits (L, V) after each of the L tokens ``ids`` of a window.

        Raises:
            BackendError: they have different shapes, or are not finite.
        """
        if reference.shape != other.shape:
            raise BackendError(
                f"it has logits of {other.shape}, and the reference of {reference.shape}",
                hint="compare models of one vocabulary",
            )
        for begin in range(0, len(ids), BLOCK):
            end = begin + BLOCK
            first = np.asarray(reference[begin:end], dtype=np.float64)
            second = np.asarray(other[begin:end], dtype=np.float64)
            if not (np.isfinite(first).all() and np.isfinite(second).all()):
                raise BackendError(
                    "some logits are NaN",
                    hint="edgellm verify says whether the weights are whole",
                )
            # the logits after a token predict the next one
            self._add_block(first, second, ids[begin + 1 : end + 1])

    def _add_block(self, reference: Floats, other: Floats, targets: Sequence[int]) -> None:
        reference_log = log_softmax(reference)
        other_log = log_softmax(other)
        # KL(p || q) = sum of p * (log p - log q)
        kl = (np.exp(reference_log) * (reference_log - other_log)).sum(axis=-1)
        self.tokens += len(kl)
        self.kl_sum += float(kl.sum())
        self.kl_max = max(self.kl_max, float(kl.max()))
        self.max_difference = max(self.max_difference, float(np.abs(reference - other).max()))
        self.agreed += int((reference.argmax(axis=-1) == other.argmax(axis=-1)).sum())
        self.predicted += len(targets)
        self.reference_loss += _loss(reference_log, targets)
        self.loss += _loss(other_log, targets)

    def as_fields(self) -> dict[str, Any]:
        """Return the figures as a record has them."""
        return {
            "tokens": self.tokens,
            "max_logit_difference": self.max_difference,
            # rounding may take the divergence of equals below 0
            "kl": max(0.0, self.kl_sum / self.tokens),
            "kl_max": self.kl_max,
            "top1_agreement": self.agreed / self.tokens,
            "reference_perplexity": self._perplexity(self.reference_loss),
            "perplexity": self._perplexity(self.loss),
        }

    def _perplexity(self, loss: float) -> float | None:
        if not self.predicted:
            return None
        return math.exp(min(loss / self.predicted, MAX_LOSS))


def log_softmax(logits: Floats) -> Floats:
    """Return the logarithms of the probabilities that logits (L, V) stand for."""
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    logarithms: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logarithms


def _loss(logarithms: Floats, targets: Sequence[int]) -> float:
    """Return the negative log-likelihood of the tokens that came next, in nats."""
    places = np.arange(len(targets))
    return -float(logarithms[places, list(targets)].sum())
