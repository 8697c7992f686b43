"""The plan of a training run's memory."""

from dataclasses import replace

import pytest
from support.tiny import LAYERS, LLAMA, write_model
from support.training import LORA

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import MemoryBudgetError
from edgellm.training.learners.adapter_memory import least_memory, plan_training
from edgellm.training.low_rank import count_numbers, initial_changes

TOKENS = {"step_tokens": 4000, "micro_tokens": 1024, "longest": 100}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return read_checkpoint(write_model(tmp_path_factory.mktemp("m") / "model", LLAMA))


def test_a_budget_is_kept_and_a_large_one_pins_all_layers(checkpoint):
    whole = plan_training(checkpoint, LORA, 1 << 40, **TOKENS)
    assert (whole.pinned, whole.reads, whole.micro_tokens) == (LAYERS, 0, 1024)
    pinned = []
    low = whole.total - 4 * whole.layers
    for budget in [*range(low, whole.total, whole.layers // 8), whole.total]:
        try:
            plan = plan_training(checkpoint, LORA, budget, **TOKENS)
        except MemoryBudgetError:
            continue
        assert plan.total <= budget
        pinned.append(plan.pinned)
    assert pinned[-1] == LAYERS


def test_results_are_kept_where_there_is_room_for_them_besides_all_layers(checkpoint):
    whole = plan_training(checkpoint, LORA, 1 << 40, **TOKENS)
    assert whole.results > 0
    assert not whole.in_memory.recompute
    for room in (whole.results - 1, 0):
        less = plan_training(checkpoint, LORA, whole.total - whole.results + room, **TOKENS)
        assert (less.pinned, less.results) == (LAYERS, 0)
        assert less.in_memory.recompute


def test_a_small_budget_cuts_a_step_into_smaller_parts_before_it_is_refused(checkpoint):
    with pytest.raises(MemoryBudgetError) as refused:
        plan_training(checkpoint, LORA, 1, **TOKENS)
    least = int(refused.value.hint.split("--memory ")[1].split("MB")[0]) * 1_000_000
    plan = plan_training(checkpoint, LORA, least, **TOKENS)
    assert 100 <= plan.micro_tokens < 200, "budgets are told in whole megabytes"
    assert plan.total <= least


def test_kept_inputs_go_to_a_file_only_where_memory_would_not_do(checkpoint):
    with pytest.raises(MemoryBudgetError) as refused:
        plan_training(checkpoint, LORA, 1, **TOKENS)
    least = int(refused.value.hint.split("--memory ")[1].split("MB")[0]) * 1_000_000
    plans = [
        plan_training(checkpoint, LORA, budget, **TOKENS)
        for budget in range(least, least + (16 << 20), 1 << 18)
    ]
    assert all(plan.total <= least + (place << 18) for place, plan in enumerate(plans))
    on_disk = [plan.inputs_on_disk for plan in plans]
    assert on_disk[0] == LAYERS
    assert on_disk[-1] == 0
    assert plans[0].disk_bytes == LAYERS * plans[0].input_bytes
    assert "written and read a step" in plans[0].in_words()
    assert "written" not in plans[-1].in_words()


def test_what_answers_before_training_leave_is_in_the_plan_and_in_the_least(checkpoint):
    quiet, asks = (
        plan_training(checkpoint, LORA, 1 << 40, **TOKENS, asks=asks) for asks in (False, True)
    )
    assert asks.process - quiet.process == asks.total - quiet.total == 16 << 20
    own = {name: TOKENS[name] for name in ("step_tokens", "longest")}
    more = least_memory(checkpoint, LORA, **own, asks=True) - least_memory(checkpoint, LORA, **own)
    assert more == pytest.approx(16 << 20, abs=1_000_000), "of whole megabytes"


def test_numbers_are_counted_as_they_are_learned(checkpoint):
    usual = plan_training(checkpoint, LORA, 1 << 40, **TOKENS)
    lora = replace(LORA, dora=True, ranks={"1.mlp.up_proj": 20}, left_out=("0.self_attn.q_proj",))
    plan = plan_training(checkpoint, lora, 1 << 40, **TOKENS, reference=True)
    config = checkpoint.config
    learned = count_numbers(initial_changes(config, lora, 0))
    shapes = {name: shape for name, shape in config.tensor_shapes().items() if len(shape) == 2}
    rows = sum(shape[0] for shape in shapes.values())
    lengths = LAYERS * rows - shapes["self_attn.q_proj.weight"][0]
    # numbers, derivatives, two moments and the reference; and squares of all rows
    assert plan.adapter == 4 * (5 * (learned + lengths) + LAYERS * rows)
    assert usual.adapter == 16 * count_numbers(initial_changes(config, LORA, 0))
    assert (
        plan.kept_inputs == usual.kept_inputs + 2 * 4 * TOKENS["step_tokens"] * config.hidden_size
    )


def test_the_data_count_against_the_budget(checkpoint):
    usual = plan_training(checkpoint, LORA, 1 << 40, **TOKENS)
    more = plan_training(checkpoint, LORA, 1 << 40, **TOKENS, data=1 << 20)
    assert more.total == usual.total + (1 << 20)
    assert more.parts["data"] == 1 << 20
    assert plan_training(checkpoint, LORA, usual.total, **TOKENS, data=1 << 20).results == 0
