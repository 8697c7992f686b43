"""Answers held to schemas as programs have them; ``structured_output.py`` says more."""

import pytest

from stress.structured_output import measured

pytestmark = pytest.mark.slow


def test_finished_answers_are_valid():
    ended, wrong = measured(1)
    assert wrong == []
    assert len(ended) == 30
    assert sum(reasons["stop"] for reasons in ended.values()) >= 24
    assert sum(reasons["error"] for reasons in ended.values()) == 0
