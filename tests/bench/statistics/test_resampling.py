"""The paired bootstrap and the jackknife, against numbers that can be had otherwise."""

import math

import numpy as np
import pytest

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.statistics.resampling import paired_bootstrap, standard_error
from edgellm.errors import ConfigError

ACCURACY = METRICS["accuracy"]


def answers(seed, count=400, share=0.7):
    return (np.random.default_rng(seed).random(count) < share).astype(float)


def test_the_interval_of_a_mean_is_the_one_that_normal_theory_gives():
    first, second = answers(0), answers(1, share=0.5)
    found = paired_bootstrap(ACCURACY, {"correct": first}, {"correct": second})
    differences = second - first
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    assert found.difference == pytest.approx(differences.mean())
    assert found.standard_error == pytest.approx(error)
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.2 * error)
    assert found.p < 0.001


def test_equal_seeds_give_equal_intervals():
    columns = {"correct": answers(0)}, {"correct": answers(1)}
    runs = [paired_bootstrap(ACCURACY, *columns, seed=seed, resamples=500) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_questions_of_one_document_are_drawn_together():
    # ten copies of a question tell no more than the question
    first, second = answers(0, 40), answers(1, 40)
    alone = paired_bootstrap(ACCURACY, {"correct": first}, {"correct": second})
    copied = paired_bootstrap(
        ACCURACY,
        {"correct": np.repeat(first, 10)},
        {"correct": np.repeat(second, 10)},
        documents=[f"text {number}" for number in np.repeat(np.arange(40), 10)],
    )
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert copied.low == pytest.approx(alone.low, abs=0.03)
    assert standard_error(
        ACCURACY, {"correct": np.repeat(first, 10)}, np.repeat(np.arange(40), 10).tolist()
    ) == pytest.approx(standard_error(ACCURACY, {"correct": first}))


def test_few_different_rows_are_drawn_as_many_rows_are():
    # the same questions, once as rows that occur often, once told apart by a column beside
    first, second = answers(0), answers(1)
    few = paired_bootstrap(ACCURACY, {"correct": first}, {"correct": second}, resamples=3000)
    names = list(range(len(first)))
    nll = first + 1e-9 * np.arange(len(first))
    many = paired_bootstrap(
        METRICS["bits_per_byte"],
        {"nll": nll * math.log(2), "bytes": np.ones(len(first))},
        {"nll": second * math.log(2), "bytes": np.ones(len(first))},
        documents=names,
        resamples=3000,
    )
    assert (many.low, many.high) == pytest.approx((few.low, few.high), abs=0.012)


def test_macro_f1_over_many_labels_is_resampled_as_any_metric():
    random = np.random.default_rng(5)
    gold = random.integers(76, size=500)
    sides = [np.where(random.random(500) < share, gold, 75 - gold) for share in (0.9, 0.8)]
    columns = [{"gold": gold, "predicted": side} for side in sides]
    found = paired_bootstrap(METRICS["macro_f1"], *columns, resamples=2000)
    assert found.low < found.difference < found.high < 0
    # the bootstrap's own spread and the jackknife's agree
    assert (found.high - found.low) / 3.92 == pytest.approx(found.standard_error, rel=0.15)


def test_little_data_claims_nothing():
    one = paired_bootstrap(ACCURACY, {"correct": [1.0]}, {"correct": [0.0]})
    assert (one.difference, one.standard_error, one.p) == (-1.0, None, 1.0)
    equal = paired_bootstrap(ACCURACY, {"correct": [1.0, 0.0]}, {"correct": [1.0, 0.0]})
    assert (equal.low, equal.high, equal.standard_error, equal.p) == (0.0, 0.0, 0.0, 1.0)
    five = paired_bootstrap(ACCURACY, {"correct": [1.0] * 5}, {"correct": [0.0] * 5})
    assert five.p == 2 / 2**5
    with pytest.raises(ConfigError, match="no question"):
        paired_bootstrap(ACCURACY, {"correct": []}, {"correct": []})
    with pytest.raises(ConfigError, match="1 documents are named for 2"):
        paired_bootstrap(ACCURACY, {"correct": [1, 0]}, {"correct": [1, 0]}, documents=["a"])


def test_p_is_that_of_normal_theory_where_that_holds():
    random = np.random.default_rng(8)
    change = random.normal(size=500)
    change += 0.09 - change.mean()
    zero = np.zeros(500)
    found = paired_bootstrap(METRICS["rouge_l"], {"rouge_l": zero}, {"rouge_l": change})
    errors = change.mean() / (change.std(ddof=1) / math.sqrt(500))
    assert found.p == pytest.approx(math.erfc(errors / math.sqrt(2)), rel=0.2)
    assert 0.02 < found.p < 0.08


def test_resamples_without_what_a_metric_is_about_are_left_out():
    columns = {"no_answer": [1.0, 1.0] + [0.0] * 8}
    first, second = ({**columns, "exact_match": [value] * 10} for value in (0.0, 1.0))
    found = paired_bootstrap(METRICS["exact_match_no_answer"], first, second)
    assert (found.low, found.high) == (1.0, 1.0)
    assert standard_error(METRICS["exact_match_no_answer"], second) == 0.0
    alone = {"no_answer": [1.0] + [0.0] * 9, "exact_match": [1.0] * 10}
    assert standard_error(METRICS["exact_match_no_answer"], alone) is None
