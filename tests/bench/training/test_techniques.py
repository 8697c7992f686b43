"""What is measured: the usual set, and every combination of what is asked for."""

import pytest

from edgellm.bench.training.technique import Technique
from edgellm.bench.training.techniques import Choice, techniques_of
from edgellm.errors import ConfigError


def titles(**choice):
    """The titles of the techniques that a choice makes."""
    return [f"{one.backend}: {one.title}" for one in techniques_of(Choice(**choice))]


def test_the_usual_set_changes_one_thing_at_a_time():
    assert titles(backends=("edgellm", "peft")) == [
        "edgellm: full",
        "edgellm: LoRA",
        "edgellm: QLoRA 4-bit",
        "edgellm: QLoRA 4-bit, checkpointed",
        "edgellm: QLoRA 4-bit, 4 parts",
        "edgellm: QLoRA 4-bit, paged",
        "peft: full",
        "peft: LoRA",
        "peft: LoRA, checkpointed",
        "peft: LoRA, 4 parts",
        "peft: LoRA, bfloat16",
    ]


def test_every_combination_of_what_is_asked_for_is_measured_once():
    found = titles(
        backends=("mlx-lm",),
        methods=("lora", "qlora"),
        bits=(4, 8),
        checkpointing=(True, False),
        accumulation=(1, 2),
    )
    assert len(found) == len(set(found)) == 3 * 4
    assert "mlx-lm: QLoRA 8-bit, checkpointed, 2 parts" in found
    # full training of edgellm knows no other way
    found = titles(backends=("edgellm",), methods=("full",), checkpointing=(True, False))
    assert found == ["edgellm: full"]


def test_budgets_are_those_of_edgellm_alone():
    budgets = {"methods": ("lora",), "memory": (300_000_000, 400_000_000)}
    assert titles(backends=("edgellm", "cuda"), **budgets) == [
        "edgellm: LoRA",
        "edgellm: LoRA, paged 300 MB",
        "edgellm: LoRA, paged 400 MB",
        "cuda: LoRA",
        "cuda: LoRA, checkpointed",
        "cuda: LoRA, 4 parts",
    ]


def test_a_library_that_does_not_train_that_way_says_what_it_does():
    with pytest.raises(ConfigError, match="peft does not train by QLoRA") as refused:
        techniques_of(Choice(backends=("edgellm", "peft"), methods=("qlora",)))
    assert "--technique lora" in refused.value.hint


def test_a_title_names_a_technique():
    technique = Technique(backend="peft", method="full", dtype="bfloat16", checkpointing=True)
    assert technique.title == "full, bfloat16, checkpointed"
