"""Errors of one machine are raised on another, with its name."""

import pytest

from edgellm.distributed.parts.wire import error_document, raise_error
from edgellm.errors import MemoryBudgetError


def test_the_hint_of_a_budget_says_whose_it_is():
    told = error_document(MemoryBudgetError("the budget is 1 MB", hint="use --memory 2MB or more"))
    with pytest.raises(MemoryBudgetError, match="machine second: the budget is 1 MB") as raised:
        raise_error(told, "second")
    assert raised.value.hint == "on machine second: use --memory 2MB or more"
