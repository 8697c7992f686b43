"""Every metric of the table: resamples, missing values, and words."""

import numpy as np
import pytest
from support.paths import ROOT

from edgellm.bench.metrics.table import COUNTED, METRICS, counts
from edgellm.errors import NotFiniteError

QUESTIONS = 30


def columns_for(metric, seed=0):
    """Counts, so that any column may stand for any other: gold labels, n-grams or 0 and 1."""
    random = np.random.default_rng(seed)
    drawn = {name: random.integers(1, 6, size=QUESTIONS) for name in sorted(metric.columns)}
    if "no_answer" in drawn:
        drawn["no_answer"] = random.integers(2, size=QUESTIONS)
    return drawn


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_a_resample_is_worth_what_its_questions_are(metric):
    columns = columns_for(metric)
    weights = np.random.default_rng(1).multinomial(QUESTIONS, [1 / QUESTIONS] * QUESTIONS, size=5)
    repeated = [
        metric.of({name: np.repeat(column, line) for name, column in columns.items()})
        for line in weights
    ]
    assert metric.of_sums(weights @ metric.statistics(columns)) == pytest.approx(
        repeated, rel=1e-12
    )
    assert len(set(repeated)) > 1
    # the order of questions makes no difference
    order = np.random.default_rng(2).permutation(QUESTIONS)
    shuffled = {name: column[order] for name, column in columns.items()}
    assert metric.of(shuffled) == pytest.approx(metric.of(columns), rel=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_a_value_that_is_no_number_is_refused_wherever_it_is(metric):
    for name in metric.columns:
        columns = {key: column.astype(float) for key, column in columns_for(metric).items()}
        columns[name][7] = np.nan
        with pytest.raises(NotFiniteError, match=f"{name} of question 8 is nan"):
            metric.of(columns)


def test_every_definition_is_one_line_that_fits_a_table():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert "\n" not in metric.definition
        assert len(metric.definition) <= 90


def test_the_documented_definitions_are_those_of_the_code():
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = [f"| {one.title} | `{one.name}` | {one.definition} |" for one in METRICS.values()]
    assert "\n".join(rows) in page


def test_what_went_wrong_is_counted():
    columns = {"tie": [1.0, 0.0, 1.0], "cut": (0.0, 0.0, 0.0), "unparsed_lines": [2.0, 3.0, 0.0]}
    assert counts(columns) == {"tie": 2, "unparsed_lines": 5}
    assert counts({"correct": [1.0]}) == {}
    assert set(counts(columns)) <= set(COUNTED)
