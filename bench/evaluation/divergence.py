"""How far the logits of two models lie apart."""

# L tokens, V words of the vocabulary

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import BackendError

ROWS = 32
"""Tokens whose logits are compared at once, in float64."""

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Comparison:
    """Two models' logits for the same tokens, added up window by window."""

    tokens: int = 0
    predicted: int = 0
    largest: float = 0.0
    divergence: float = 0.0
    worst: float = 0.0
    agreed: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(
        self, reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32], ids: Sequence[int]
    ) -> None:
        """Compare logits (L, V) after each of the tokens ``ids``. Raises BackendError where they cannot be compared."""
        if reference.shape != other.shape:
            raise BackendError(
                f"it has logits of {other.shape}, and the reference of {reference.shape}"
            )
        for begin in range(0, len(ids), ROWS):
            rows = [
                np.asarray(logits[begin : begin + ROWS], dtype=np.float64)
                for logits in (reference, other)
            ]
            if not all(np.isfinite(part).all() for part in rows):
                raise BackendError("there are logits that are no numbers")
            self._add(rows, ids[begin + 1 : begin + 1 + ROWS])

    def _add(self, rows: list[Floats], targets: Sequence[int]) -> None:
        logarithms = [log_softmax(part) for part in rows]
        divergence = (np.exp(logarithms[0]) * (logarithms[0] - logarithms[1])).sum(axis=-1)
        self.tokens += len(divergence)
        self.largest = max(self.largest, float(np.abs(rows[0] - rows[1]).max()))
        self.divergence += float(divergence.sum())
        self.worst = max(self.worst, float(divergence.max()))
        self.agreed += int((rows[0].argmax(axis=-1) == rows[1].argmax(axis=-1)).sum())
        self.predicted += len(targets)
        for side, logarithm in enumerate(logarithms):
            self.losses[side] -= float(logarithm[np.arange(len(targets)), list(targets)].sum())

    def as_fields(self) -> dict[str, Any]:
        """The figures, as a record has them."""
        first, second = (
            math.exp(min(loss / self.predicted, 700.0)) if self.predicted else None
            for loss in self.losses
        )
        return {
            "tokens": self.tokens,
            "max_logit_difference": self.largest,
            # rounding may take the divergence of equals below 0
            "kl": max(0.0, self.divergence / self.tokens),
            "kl_max": max(0.0, self.worst),
            "top1_agreement": self.agreed / self.tokens,
            "reference_perplexity": first,
            "perplexity": second,
        }


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of the probabilities that logits (L, V) stand for."""
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found
