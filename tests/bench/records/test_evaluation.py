"""Records of evaluations: derived figures, and columns that belong to questions."""

import pytest
from support.bench_records import COMMON

from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.fields import FieldError
from edgellm.bench.records.kinds import record_of

FIELDS = COMMON | {
    "test": "eval",
    "task": "tickets",
    "headline": "accuracy",
    "metrics": {"accuracy": 0.5},
    "question_ids": ("a", "b"),
    "question_hashes": ("1f", "2e"),
    "documents": ("a", "b"),
    "columns": {"correct": (1.0, 0.0), "tie": (0.0, 1.0), "cut": (0.0, 1.0)},
    "seconds": (4.0,),
    "first_token_seconds": (0.2, 0.1),
    "step_seconds": (0.02, 0.04, 0.02),
}


def test_figures_follow_from_the_columns():
    record = EvaluationRecord(**FIELDS)
    assert record.score == 0.5
    assert (record.questions, record.ties, record.cut) == (2, 1, 1)
    assert record.questions_per_second == 0.5
    assert record.tokens_per_second == pytest.approx(50)
    assert record.first_token_p50 == 0.1
    assert record.warnings == [
        "1 of 2 prompts were cut: what stood in front was not read: raise --context, "
        "or take fewer shots"
    ]


def test_a_record_comes_back_from_its_document():
    record = EvaluationRecord(**FIELDS)
    assert record_of(record.as_dict()) == record


def test_a_column_of_another_length_is_refused():
    with pytest.raises(FieldError, match="correct is 1 values, and must be 2, one a question"):
        EvaluationRecord(**FIELDS | {"columns": {"correct": (1.0,)}})
