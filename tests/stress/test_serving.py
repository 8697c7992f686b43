"""A sample of requests to a server: no foreign token, and nothing is left behind."""

import pytest

from stress.serving import measured

pytestmark = pytest.mark.slow


def test_every_answer_is_that_of_its_own_conversation():
    seen, _, busy, _ = measured(requests=150, at_once=32, memory="40MB", conversations_count=20)
    assert seen.wrong == []
    assert seen.broken == []
    assert set(seen.statuses) == {None, 200}
    assert busy == {"running": 0, "waiting": 0}
