"""Exact match, F1 and contains by SQuAD's official rules."""

import pytest

from edgellm.bench.metrics.answers import answer_columns, normalize_answer
from edgellm.bench.metrics.table import METRICS


def test_case_punctuation_articles_and_spaces_make_no_difference():
    assert normalize_answer(" The  U.S.A., an (old) A-Team ") == "usa old ateam"
    columns = answer_columns("the Denver  Broncos.", ["Denver Broncos", "Broncos"])
    assert columns == {"exact_match": 1.0, "f1": 1.0, "contains": 1.0, "no_answer": 0.0}


def test_the_best_of_several_right_answers_counts():
    columns = answer_columns("in the year 1972 in December", ["14 December 1972", "December 1972"])
    # five words said, two of two wanted: P 2/5, R 1
    assert columns["f1"] == pytest.approx(2 * 0.4 / 1.4)
    assert columns["exact_match"] == columns["contains"] == 0.0
    assert answer_columns("It was December 1972!", ["1972", "x"])["contains"] == 1.0
    assert answer_columns("It was in 19721", ["1972"])["contains"] == 0.0
    assert answer_columns("東京は日本の首都です", ["日本"])["contains"] == 1.0


def test_no_answer_is_right_where_there_is_none():
    assert answer_columns("", []) == answer_columns("the", [""])
    assert answer_columns("", [])["f1"] == 1.0
    assert answer_columns("Paris", [""])["f1"] == 0.0
    assert answer_columns("", ["Paris"])["exact_match"] == 0.0
    columns = {
        name: [answer_columns(said, gold)[name] for said, gold in CASES]
        for name in ("exact_match", "f1", "no_answer")
    }
    assert METRICS["exact_match"].of(columns) == 0.5
    assert METRICS["exact_match_has_answer"].of(columns) == 0.5
    assert METRICS["exact_match_no_answer"].of(columns) == 0.5
    assert METRICS["f1_has_answer"].of(columns) == pytest.approx(5 / 6)  # P 1/2, R 1 of the second
    assert METRICS["f1_has_answer"].is_defined(columns)
    for no_answer in ([1.0], [0.0]):
        # nothing is answerable; and where everything is, it would be F1 again
        assert not METRICS["f1_has_answer"].is_defined({"f1": [1.0], "no_answer": no_answer})


CASES = [("", []), ("Rome", []), ("Paris", ["Paris"]), ("Paris of France of", ["Paris, France"])]


def test_the_two_versions_differ_only_where_nothing_is_left_of_a_right_answer():
    # version 1.1 gives F1 0 where no word is shared, even between two empty answers
    assert answer_columns("", ["The"], version=1)["exact_match"] == 1.0
    assert answer_columns("", ["The"], version=1)["f1"] == 0.0
    assert answer_columns("", ["The"], version=2)["f1"] == 1.0
    assert answer_columns("", ["The", "Paris"], version=2)["f1"] == 0.0
    # a question has no answer by what the row says, whatever is left of that
    assert answer_columns("", ["The"])["no_answer"] == 0.0
    assert answer_columns("", [""])["no_answer"] == 1.0
