"""Generated texts that have no one right answer: how much in them is new."""

from __future__ import annotations

from edgellm.bench.metrics.words import words

DISTINCT_ORDERS = (1, 2, 3, 4)


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
