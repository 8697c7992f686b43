"""``edgellm.plan``: what ``load`` would do, before it does."""

from dataclasses import asdict

import pytest

import edgellm
from edgellm.errors import ConfigError, MemoryBudgetError, ModelNotFoundError
from edgellm.settings import LoadSettings

PREDICTED = {"seconds_per_token", "seconds_at_best", "seconds_at_worst", "bound_by"}


def without_prediction(plan):
    return {name: value for name, value in asdict(plan).items() if name not in PREDICTED}


@pytest.mark.parametrize("memory", ["500MB", "950KB"])
def test_a_plan_is_that_which_load_follows(open_llm, memory):
    loaded = open_llm("llama-3.2", load={"memory": memory, "context": 64}).plan
    folder = open_llm("llama-3.2").path
    planned = edgellm.plan(folder, memory=memory, context=64, threads=1)
    assert without_prediction(planned) == without_prediction(loaded)
    assert planned.resident is (memory == "500MB")
    assert planned.seconds_per_token > 0
    assert edgellm.plan(folder, LoadSettings(memory=memory), context=64).context == 64
    assert len(repr(planned)) < 80
    assert "context 64" in repr(planned)


def test_a_plan_is_refused_as_load_would_be(tiny_folder):
    folder = tiny_folder("llama-3.2")
    with pytest.raises(MemoryBudgetError):
        edgellm.plan(folder, memory="20KB")
    with pytest.raises(ConfigError) as caught:
        edgellm.plan(folder, n_ctx=64)
    assert caught.value.hint == "did you mean context?"
    with pytest.raises(ConfigError):
        edgellm.plan(None)
    with pytest.raises(ModelNotFoundError):
        edgellm.plan("no-such-model")
