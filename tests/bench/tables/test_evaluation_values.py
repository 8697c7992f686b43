"""Values of metrics in words: units, signs, and which direction is better."""

import pytest

from edgellm.bench.metrics.table import METRICS
from edgellm.bench.tables.evaluation_values import (
    change_texts,
    direction_of,
    interval_text,
    is_better,
    title_of,
    value_text,
)


def test_shares_are_of_a_hundred_and_changes_have_signs():
    assert value_text("accuracy", 0.905) == "90.5"
    assert interval_text("accuracy", -0.01, -0.03, 0.01) == "-1.0 (-3.0 to +1.0)"
    assert interval_text("accuracy", 2e-4, 1e-4, 3e-4) == "+0.02 (+0.01 to +0.03)"
    assert interval_text("accuracy", 1e-4, -1e-4, 3e-4) == "0.0 (0.0 to 0.0)"
    assert change_texts("accuracy", -1e-9) == ["0.000"], "nothing is not less than nothing"
    assert value_text("right_logprob", -1.2345) == "-1.234"


def test_perplexity_is_better_lower_and_length_neither_way():
    assert is_better("token_perplexity", 5.0, 6.0)
    assert is_better("accuracy", 0.6, 0.5)
    assert not is_better("length", 5.0, 6.0)
    assert not is_better("length", 6.0, 5.0)
    assert direction_of("bits_per_byte") == "lower is better"
    assert direction_of("length") == ""


@pytest.mark.parametrize("name", [*METRICS, "of another version"])
@pytest.mark.parametrize("value", [0.0, -1e305, 3e-305, 12.0])
def test_every_metric_has_short_texts_of_any_value(name, value):
    assert len(change_texts(name, value)[0]) <= 16
    assert title_of(name)
