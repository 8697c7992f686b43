"""What so many questions can show."""

import math

import numpy as np
import pytest

from edgellm.bench.statistics.sample_size import (
    in_unit,
    most_that_differ,
    questions_for,
    smallest_shown,
    what_it_shows,
)


def says(questions, error, unit="share", *, differing=4, seen=False):
    return what_it_shows(questions, error, unit=unit, differing=differing, seen=seen)


def test_the_sentence_names_the_smallest_difference_and_how_many_would_show_a_finer_one():
    assert says(200, 0.010) == (
        "200 questions cannot show a difference below 2.8 points; 1,600 would show 1."
    )
    assert says(200, 0.010, seen=True) == (
        "200 questions show differences from 2.8 points on, 4 times in 5; 1,600 would from 1 on."
    )
    assert says(40, 0.004, "bits/byte") == (
        "40 questions cannot show a difference below 0.011 bits/byte; 210 would show 0.005."
    )


def test_the_smallest_difference_is_found_four_times_in_five():
    # many runs of 300 questions, of which two fifths differ, with a true difference of that size
    random, questions, differ = np.random.default_rng(0), 300, 0.4
    # the error is that of means whose squares are differ, and whose mean is the true difference
    true = math.sqrt(differ / (1 + questions / smallest_shown(1.0) ** 2))
    error = math.sqrt((differ - true**2) / questions)
    assert smallest_shown(error) == pytest.approx(true)
    share = (differ + true) / 2 / differ
    changed = random.binomial(questions, differ, size=20_000)
    better = random.binomial(changed, share)
    means = (2 * better - changed) / questions
    errors = np.sqrt((changed / questions - means**2) / questions)
    assert (means - 1.96 * errors > 0).mean() == pytest.approx(0.8, abs=0.02)
    # as many questions as are said to show half of it have half the error
    many = questions_for(true / 2, questions=questions, standard_error=error)
    assert smallest_shown(error * math.sqrt(questions / many)) == pytest.approx(true / 2, rel=0.05)


def test_equal_answers_bound_the_share_that_differs():
    assert (1 - most_that_differ(200)) ** 200 == pytest.approx(0.05)
    assert says(200, 0.0, differing=0) == (
        "Not one of 200 questions differs; at most 1.5 % of all questions would."
    )
    assert says(5, 0.0, differing=5) == (
        "All 5 questions differ by the same; at most 45 % of all questions would not."
    )


def test_one_question_shows_nothing():
    assert says(1, None).startswith("1 question cannot show a difference")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.01, "share", "1 point"),
        (0.1234, "share", "12 points"),
        (1.0, "score", "1 point"),
        (123.0, "perplexity", "120 of perplexity"),
        (0.000123, "nats", "0.00012 nats"),
    ],
)
def test_differences_have_two_digits_and_a_unit(value, unit, text):
    assert in_unit(value, unit) == text
