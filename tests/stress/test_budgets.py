"""A sample of the budgets that ``python tests/stress/budgets.py`` holds processes to."""

from argparse import Namespace

import pytest
from support.memory_cap import can_cap

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters.synthetic import synthesize
from edgellm.memory_plan.plan_checkpoint import least_memory
from edgellm.settings import LoadSettings
from stress.budgets import Row, run

pytestmark = pytest.mark.slow

TOKENS = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budgets") / "model"
    synthesize("tiny-llama", folder)
    return folder


@pytest.mark.parametrize(("share", "code"), [(1, 0), (0.9, 3)])
def test_a_process_stays_within_its_budget_or_the_plan_says_so_beforehand(
    model, tmp_path, share, code
):
    row = Row("2 beams and a cache", TOKENS, ("--kv-bits", "4", "--beams", "2"), ("--cache",))
    settings = LoadSettings(kv_bits=4, beams=2, context=TOKENS + 6)
    budget = int(share * least_memory(read_checkpoint(model), settings))
    asked = Namespace(folder=tmp_path, threads="1", uncapped=not can_cap())
    (result,) = run(row, budget, model, None, asked)
    assert result["right"], result["note"]
    assert result["code"] == code
