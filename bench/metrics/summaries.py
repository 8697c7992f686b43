"""Summaries: ROUGE-L over words of any script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from edgellm.bench.metrics.words import words


def summary_columns(answer: str, references: Sequence[str]) -> dict[str, float]:
    """Return the column of a summary: the best F1 over several references."""
    given = words(answer)
    return {"rouge_l": max((_rouge_l(given, words(text)) for text in references), default=0.0)}


def _rouge_l(given: Sequence[str], wanted: Sequence[str]) -> float:
    common = longest_common_subsequence(given, wanted)
    if not common:
        return 0.0
    precision = common / len(given)
    recall = common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest sequence of words that is in both, in order.

    A row of the usual table is one integer, a bit a word, clear where the row steps up (Hyyrö,
    "Bit-parallel LCS-length computation revisited", 2004).
    """
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(first):
        places[word] |= 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        met = row & places[word]
        row = ((row + met) | (row - met)) & everywhere
    return len(first) - row.bit_count()
