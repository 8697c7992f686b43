"""Options scored by their log-likelihood: columns of a question, and macro-F1 over labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgellm.bench.metrics.metric import Floats
from edgellm.errors import ConfigError, NotFiniteError


def choice_columns(
    options: Sequence[str], logprobs: Sequence[float], gold: int
) -> dict[str, float]:
    """Return the columns of a question whose options were scored.

    The likeliest option is the prediction; among equals the first, and the tie is counted.

    Args:
        options: as the metric counts their length: without the space before them.
        logprobs: log-likelihood of each, summed over its tokens.
        gold: number of the right option.

    Raises:
        ConfigError: fewer than two options, an empty one, or no such right option.
        NotFiniteError: a log-likelihood is NaN or infinite.
    """
    if len(options) < 2 or len(options) != len(logprobs) or not 0 <= gold < len(options):
        raise ConfigError(
            f"option {gold} of {len(options)} with {len(logprobs)} log-likelihoods cannot be right",
            hint="give two options or more, and the number of the right one from 0",
        )
    if not all(options):
        raise ConfigError("an option is empty", hint="give each option a text")
    bad = [number for number, value in enumerate(logprobs) if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"the log-likelihood of option {options[bad[0]]!r} is {logprobs[bad[0]]}",
            hint="edgellm verify says whether the weights are whole",
        )
    scores = np.asarray(logprobs, dtype=np.float64)
    predicted = int(scores.argmax())
    by_characters = scores / [len(option) for option in options]
    by_bytes = scores / [len(option.encode()) for option in options]
    return {
        "correct": float(predicted == gold),
        "correct_chars": float(by_characters.argmax() == gold),
        "correct_bytes": float(by_bytes.argmax() == gold),
        "gold": float(gold),
        "predicted": float(predicted),
        "right_logprob": float(scores[gold]),
        "tie": float((scores == scores[predicted]).sum() > 1),
    }


def label_counts(rows: Floats) -> Floats:
    """Return for each label of (gold, predicted) pairs whether it was hit, predicted and gold.

    A number below 0 stands for no label.

    Returns:
        (N, 3 K) for K labels: K hits, then K predictions, then K gold labels.
    """
    gold, predicted = rows.astype(np.int64).T
    labels = np.arange(max(0, int(rows.max(initial=-1.0))) + 1)
    is_gold = gold[:, None] == labels
    is_predicted = predicted[:, None] == labels
    return np.concatenate([is_gold & is_predicted, is_predicted, is_gold], axis=1, dtype=np.float64)


def macro_f1(sums: Floats) -> Floats:
    """Return the mean F1 of the labels that are gold or predicted somewhere."""
    hits, predicted, gold = np.split(sums, 3, axis=-1)
    seen = predicted + gold
    f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=seen > 0)
    mean: Floats = f1.sum(axis=-1) / (seen > 0).sum(axis=-1)
    return mean
