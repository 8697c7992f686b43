"""Short answers: exact match and F1 by the rules of SQuAD's official script."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from edgellm.bench.metrics.words import contains_run, words

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation, English articles, extra spaces."""
    bare = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def answer_columns(
    answer: str, gold: Sequence[str], *, version: Literal[1, 2] = 2
) -> dict[str, float]:
    """Return the columns of an answer; the best over several gold answers counts.

    Args:
        answer: what the model said; "" says that there is none.
        gold: right answers; none, or only "", where the question has no answer.
        version: 1 for the rules of SQuAD 1.1, 2 for those of SQuAD 2.0, which drop gold answers
            of which nothing is left, and count "" as right where none remains. They differ
            nowhere else.
    """
    golds = [normalize_answer(text) for text in gold]
    if version == 2:
        golds = [text for text in golds if text]
    if not golds:
        golds = [""]
    given = normalize_answer(answer)
    return {
        "exact_match": float(given in golds),
        "f1": max(_f1(given, text, version) for text in golds),
        "contains": max(_contains(given, text) for text in golds),
        "no_answer": float(not any(gold)),
    }


def _f1(given: str, gold: str, version: int) -> float:
    given_words, gold_words = given.split(), gold.split()
    if version == 2 and not (given_words and gold_words):
        return float(given_words == gold_words)
    common = (Counter(given_words) & Counter(gold_words)).total()
    if not common:
        return 0.0
    precision = common / len(given_words)
    recall = common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def _contains(given: str, gold: str) -> float:
    if not gold:
        return float(not given)
    return float(contains_run(words(given), words(gold)))
