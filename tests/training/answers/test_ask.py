"""Models are asked as a person would ask them."""

from contextlib import nullcontext

import mlx.core as mx
import pytest
from support.tiny import LLAMA, write_model
from support.training import LORA

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.settings import LoadSettings, parse_budget
from edgellm.training.adapter_folder import write_adapter
from edgellm.training.answers.ask import Asker
from edgellm.training.low_rank import initial_changes
from edgellm.training.trained_model import PROCESS_BYTES

PROMPTS = [[1, 40, 41, 42], [1, 50], [1, 60, 61]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("m") / "model", LLAMA)


def asker(tokens=8, said=None, **load):
    say = (lambda _: None) if said is None else said.append
    return Asker(LoadSettings(**load), tokens, say, lambda: nullcontext(lambda _: None), lambda: 0)


@pytest.mark.parametrize("form", [None, "peft", "mlx-lm"])
def test_answers_are_those_of_the_model_alone(folder, tmp_path, form):
    adapter = None
    if form is not None:
        changes = initial_changes(read_checkpoint(folder).config, LORA, 0)
        for change in changes:
            for name, array in change.items():
                if name.endswith("lora_B"):
                    change[name] = 0.3 * mx.random.normal(array.shape, key=mx.random.key(1))
        write_adapter(tmp_path, changes, LORA, base="base", form=form)
        adapter = tmp_path
    found = asker()(PROMPTS, model=str(folder), adapter=adapter)
    with edgellm.load(folder, adapter=adapter) as llm:
        expected = [llm.generate(prompt, max_tokens=8).text.strip() for prompt in PROMPTS]
    assert found == expected
    without = asker()(PROMPTS, model=str(folder), adapter=None)
    assert (found != without) == (form is not None)


def test_where_there_is_no_memory_nothing_is_answered_and_that_is_said(folder):
    said = []
    assert asker(said=said, memory="1MB")(PROMPTS, model=str(folder), adapter=None) is None
    assert "no answers: " in said[0]


def test_what_passes_over_the_disk_cost_is_said_before(folder):
    with pytest.raises(MemoryBudgetError) as raised:
        edgellm.load(folder, memory=1, context=80, kv_bits=16)
    least = parse_budget(raised.value.hint.partition("--memory ")[2].partition(" ")[0])
    said = []
    ask = asker(said=said, tokens=None, memory=PROCESS_BYTES + least)
    answers = ask(PROMPTS[:1], model=str(folder), adapter=None)
    assert answers is not None
    assert "for each of 16 tokens" in said[0]
    assert "--answers 0" in said[0]
