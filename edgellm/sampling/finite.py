"""Logits that are not finite, as damaged weights give: found by the largest of a position."""

# N positions, V vocabulary

from __future__ import annotations

from typing import Any

import numpy as np

from edgellm.errors import NotFiniteError


def require_finite(largest_logits: Any, subject: str = "the model") -> None:
    """Raise NotFiniteError where a position has no logits that a token can be drawn from.

    Args:
        largest_logits: of each of N positions, or of one. The largest is not finite where any
            logit is not a number or infinite, or where all are minus infinity.
        subject: whose logits they are, for the message.
    """
    if not np.isfinite(np.array(largest_logits)).all():
        raise NotFiniteError(
            f"{subject} computes numbers that are not finite",
            hint="its weights may be damaged: run `edgellm verify MODEL`",
        )
