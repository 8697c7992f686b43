"""Texts that a model reads: the columns behind perplexity and bits per byte."""

from __future__ import annotations

import math

from edgellm.errors import NotFiniteError


def text_columns(text: str, nll: float, tokens: int) -> dict[str, float]:
    """Return the columns of a text that was scored as a whole.

    Args:
        text: all of it, as it was tokenized.
        nll: negative log-likelihood of its tokens, summed, in nats.
        tokens: that were scored: all but the one that begins the document.

    Raises:
        NotFiniteError: the likelihood is NaN or infinite.
    """
    if not math.isfinite(nll):
        raise NotFiniteError(
            f"the log-likelihood of a text is {-nll}",
            hint="edgellm verify says whether the weights are whole",
        )
    return {
        "nll": float(nll),
        "tokens": float(tokens),
        "words": float(len(text.split())),
        "bytes": float(len(text.encode())),
        "characters": float(len(text)),
    }
