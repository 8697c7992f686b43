"""Texts without a right answer: how well they are expected, and how much in them is new."""

from __future__ import annotations

import math

from edgellm.bench.metrics.words import words
from edgellm.errors import NotFiniteError

DISTINCT_ORDERS = (1, 2, 3, 4)


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


def continuation_columns(text: str) -> dict[str, float]:
    """Return the columns of a generated text.

    For n from 1 to 4, ``distinct_n`` counts its different n-grams of words, ``ngrams_n`` all of
    them; ``length`` counts its words.
    """
    said = words(text)
    columns = {"length": float(len(said))}
    for order in DISTINCT_ORDERS:
        ngrams = [tuple(said[begin : begin + order]) for begin in range(len(said) - order + 1)]
        columns[f"distinct_{order}"] = float(len(set(ngrams)))
        columns[f"ngrams_{order}"] = float(len(ngrams))
    return columns
