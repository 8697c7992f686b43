"""Options: which one counts as predicted, ties, and macro-F1."""

import math

import numpy as np
import pytest

from edgellm.bench.metrics.choices import choice_columns
from edgellm.bench.metrics.table import METRICS, counts
from edgellm.errors import ConfigError, NotFiniteError


def test_length_is_counted_in_characters_and_in_bytes():
    # by the sum "a" is likeliest; per character "Straße" (-0.5), per byte "Straße" (-3 / 7)
    columns = choice_columns(["a", "Straße"], [-2.0, -3.0], gold=1)
    assert (columns["correct"], columns["predicted"]) == (0.0, 0.0)
    assert columns["correct_chars"] == columns["correct_bytes"] == 1.0
    assert columns["right_logprob"] == -3.0
    # six characters, eighteen bytes: what is likelier per character is not so per byte
    columns = choice_columns(["abcdef", "日本語日本語"], [-6.0, -7.0], gold=0)
    assert (columns["correct_chars"], columns["correct_bytes"]) == (1.0, 0.0)


def test_the_first_of_equals_is_predicted_and_the_tie_counted():
    columns = choice_columns(["no", "yes", "or"], [-3.0, -1.0, -1.0], gold=2)
    assert (columns["predicted"], columns["correct"], columns["tie"]) == (1.0, 0.0, 1.0)
    assert choice_columns(["no", "yes", "or"], [-3.0, -3.0, -1.0], gold=2)["tie"] == 0.0
    assert counts({"tie": [1.0, 0.0, 1.0], "cut": [0.0, 0.0, 0.0]}) == {"tie": 2}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_likelihood_that_is_no_number_is_refused(bad):
    with pytest.raises(NotFiniteError, match="'b' is"):
        choice_columns(["a", "b"], [-1.0, bad], gold=0)
    with pytest.raises(NotFiniteError, match="right_logprob of question 2"):
        METRICS["right_logprob"].of({"right_logprob": [-1.0, bad]})


@pytest.mark.parametrize(("options", "gold"), [(["a"], 0), (["a", "b"], 2), (["a", ""], 0)])
def test_options_that_cannot_be_chosen_from_are_an_error(options, gold):
    with pytest.raises(ConfigError):
        choice_columns(options, [-1.0] * len(options), gold)


def test_macro_f1_is_that_of_its_definition():
    random = np.random.default_rng(0)
    gold, predicted = random.integers(9, size=(2, 60))
    gold[gold == 7] = 3
    predicted[predicted == 7] = 3  # a label that nobody uses has no F1
    each = []
    for label in set(gold) | set(predicted):
        hits = sum((gold == label) & (predicted == label))
        each.append(2 * hits / (sum(gold == label) + sum(predicted == label)))
    columns = {"gold": gold, "predicted": predicted}
    assert METRICS["macro_f1"].of(columns) == pytest.approx(np.mean(each), abs=1e-12)
    weights = random.integers(3, size=(4, 60))
    again = [
        METRICS["macro_f1"].of({name: np.repeat(side, line) for name, side in columns.items()})
        for line in weights
    ]
    sums = weights @ METRICS["macro_f1"].statistics(columns)
    assert METRICS["macro_f1"].of_sums(sums) == pytest.approx(again, abs=1e-12)


def test_a_metric_without_its_columns_says_which():
    assert not METRICS["accuracy"].is_defined({"f1": [1.0]})
    assert not METRICS["accuracy"].is_defined({"correct": []})
    with pytest.raises(ConfigError, match="needs the column correct"):
        METRICS["accuracy"].of({"f1": [1.0]})
    with pytest.raises(ConfigError, match="differ in length"):
        METRICS["kl"].of({"kl_sum": [1.0, 2.0], "kl_tokens": [1.0]})
