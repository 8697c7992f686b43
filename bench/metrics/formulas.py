"""Formulas of metrics: from sums of statistics to values, and from columns to statistics."""

# N questions, K labels

from __future__ import annotations

import numpy as np

from edgellm.bench.metrics.metric import Floats
from edgellm.bench.metrics.translations import CHARACTER_ORDERS, ORDERS


def mean(sums: Floats) -> Floats:
    """Return the mean of a column."""
    return sums[..., 1] / sums[..., 0]


def ratio(sums: Floats) -> Floats:
    """Return one column over another."""
    return sums[..., 1] / sums[..., 2]


def repeated(sums: Floats) -> Floats:
    """Return what a ratio leaves of 1."""
    return 1 - ratio(sums)


def bits(sums: Floats) -> Floats:
    """Return a ratio of nats in bits."""
    value: Floats = ratio(sums) / np.log(2)
    return value


def perplexity(sums: Floats) -> Floats:
    """Return the exponential of a ratio."""
    value: Floats = np.exp(ratio(sums))
    return value


def span_f1(sums: Floats) -> Floats:
    """Return F1 of hits, spans that were predicted, and gold ones."""
    hits, spans = sums[..., 1], sums[..., 2] + sums[..., 3]
    # without any span, conlleval and seqeval say 0
    return np.where(spans > 0, 2 * hits / spans, 0.0)


def of_answerable(rows: Floats) -> Floats:
    """Return (1, value) of questions that have an answer, (0, 0) of others."""
    asked = 1 - rows[:, 1]
    return np.stack([asked, rows[:, 0] * asked], axis=1)


def of_unanswerable(rows: Floats) -> Floats:
    """Return (1, value) of questions that have no answer, (0, 0) of others."""
    asked = rows[:, 1]
    return np.stack([asked, rows[:, 0] * asked], axis=1)


def of_rated(rows: Floats) -> Floats:
    """Return (1, rating) of rated answers, (0, 0) of those without a rating."""
    return np.concatenate([rows > 0, rows], axis=1)


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


def bleu(sums: Floats) -> Floats:
    """Return corpus BLEU, exponentially smoothed, of sums (..., 1 + 10) of the columns."""
    length, reference_length = sums[..., 1], sums[..., 2]
    matched, total = sums[..., 3 : 3 + ORDERS], sums[..., 3 + ORDERS :]
    # an order without a match counts as half a match, the next one as a quarter
    without = np.cumsum(matched == 0, axis=-1)
    smoothed = np.where(matched == 0, 0.5**without, matched)
    precisions = 100 * smoothed / total
    brevity = np.where(length < reference_length, np.exp(1 - reference_length / length), 1.0)
    value = brevity * np.exp(np.log(precisions).mean(axis=-1))
    empty = (matched.sum(axis=-1) == 0) | (total == 0).any(axis=-1)
    return np.where(empty, 0.0, value)


def chrf(sums: Floats) -> Floats:
    """Return corpus chrF2 of sums (..., 1 + 18) of the columns."""
    orders = sums[..., 1:].reshape(*sums.shape[:-1], CHARACTER_ORDERS, 3)
    given, wanted, matched = np.moveaxis(orders, -1, 0)
    counted = (given > 0) & (wanted > 0)
    precision = np.where(counted, matched / given, 0.0).sum(axis=-1)
    recall = np.where(counted, matched / wanted, 0.0).sum(axis=-1)
    many = counted.sum(axis=-1)
    # beta is 2: F = 5 P R / (4 P + R), of means over the orders that both sides have
    value = 100 * 5 * precision * recall / (4 * precision + recall) / many
    return np.where(matched.sum(axis=-1) == 0, 0.0, value)
