"""Preferences: loss and derivatives are right, wherever layers are and however a step is cut."""

import math

import numpy as np
import pytest
from support.pairs import pairs
from support.tiny import LAYERS, LLAMA, write_model
from support.training import LORA, are_equal, are_near, in_four_bits, moved, open_training, slopes

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.training.learners.preference import PreferenceLearner
from edgellm.training.low_rank import initial_changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


def opened_learner(folder, *, micro_tokens=1000, lora=LORA, **where):
    return PreferenceLearner(
        opened=open_training(folder, lora=lora, **where),
        config=read_checkpoint(folder).config,
        lora=lora,
        micro_tokens=micro_tokens,
        seed=0,
        beta=0.1,
    )


def changes_of(folder):
    """Numbers of which none is 0, so that all derivatives count."""
    return moved(initial_changes(read_checkpoint(folder).config, LORA, seed=3), 0.1)


def computed(folder, *, rounds=1, **how):
    """A step, and the layers that were read in the last round."""
    learner = opened_learner(folder, **how)
    try:
        layers = learner._model.layers
        for _ in range(rounds):
            before = layers.reads
            found = learner.gradients(pairs(), changes_of(folder), 0)
        return found, layers.reads - before
    finally:
        learner.close()


@pytest.fixture(scope="module")
def whole(folder):
    return computed(folder, pinned=range(LAYERS))[0]


def test_what_is_not_learned_yet_prefers_neither(folder):
    learner = opened_learner(folder)
    found = learner.gradients(pairs(), learner.initial(), 0)
    learner.close()
    assert found.loss == pytest.approx(math.log(2), abs=1e-12)
    assert found.figures == {"margin": 0, "accuracy": 0}
    assert found.asked == 3


@pytest.mark.parametrize(("pinned", "buffers"), [(0, 2), (2, 2)])
def test_the_reference_takes_no_second_read_and_bits_are_equal(folder, whole, pinned, buffers):
    paged, reads = computed(folder, pinned=range(pinned), buffers=buffers, rounds=2)
    assert reads == 2 * (LAYERS - pinned - buffers)
    assert (paged.loss, paged.figures) == (whole.loss, whole.figures)
    assert are_equal(paged.by_changes, whole.by_changes)


def test_a_cut_may_part_a_pair(folder, whole):
    parts, _ = computed(folder, micro_tokens=1)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert are_near(parts.by_changes, whole.by_changes)


def test_derivatives_are_those_of_the_loss(folder, whole):
    learner = opened_learner(folder, pinned=range(LAYERS))

    def loss_at(numbers):
        found = learner.loss_of(pairs(), numbers)
        return found.total / found.asked

    told, slope = slopes(loss_at, changes_of(folder), whole.by_changes)
    learner.close()
    assert told == pytest.approx(slope, rel=2e-2, abs=2e-3)


def test_preferred_answers_gain(folder):
    from edgellm.training.optimizer import AdamW, RateSettings

    learner = opened_learner(folder, pinned=range(LAYERS))
    numbers, optimizer = learner.initial(), AdamW(RateSettings())
    for step in range(4):
        found = learner.gradients(pairs(), numbers, step)
        optimizer.move(numbers, found.by_changes, 1e-2, 1.0)
    after = learner.loss_of(pairs(), numbers)
    learner.close()
    assert after.figures["margin"] > 0.1
    assert after.figures["accuracy"] == 1
    assert after.total / after.asked < math.log(2)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_five_steps_are_those_of_trl_and_peft(tmp_path):
    trl = pytest.importorskip("trl")
    import datasets
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from edgellm.training.data.rendering import sequence
    from edgellm.training.micro_batch import PreferencePair
    from edgellm.training.optimizer import AdamW, RateSettings

    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "sixteen", bits=16)
    rows = [
        {"prompt": "Once upon a time", "chosen": " there was a dog.", "rejected": " dog the a"},
        {"prompt": "The cat", "chosen": " sat.", "rejected": " of of of of in the."},
    ]
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "theirs"),
            per_device_train_batch_size=2,
            max_steps=5,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            weight_decay=0.01,
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            r=4,
            lora_alpha=8,
            lora_dropout=0.0,
            target_modules=[target.rpartition(".")[2] for target in LORA.targets],
            task_type="CAUSAL_LM",
        ),
    )
    learner = opened_learner(tmp_path / "sixteen")
    changes = learner.initial()
    parameters = dict(trainer.model.named_parameters())
    for layer, change in enumerate(changes):
        for name, array in change.items():
            key = f"base_model.model.model.layers.{layer}.{name}.default.weight"
            parameters[key].data.copy_(torch.tensor(np.array(array)))
    items = []
    for place, row in enumerate(trainer.train_dataset):
        prompt = row["prompt_ids"]
        both = [
            sequence(
                prompt + row[answer],
                [False] * len(prompt) + [True] * len(row[answer]),
                2 * place + number,
            )
            for number, answer in enumerate(("chosen_ids", "rejected_ids"))
        ]
        items.append(PreferencePair(*both))
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    optimizer = AdamW(RateSettings(decay=0.01))
    for step, entry in enumerate(theirs):
        found = learner.gradients(items, changes, step)
        assert found.loss == pytest.approx(float(entry["loss"]), abs=2e-5)
        assert found.figures["margin"] == pytest.approx(float(entry["rewards/margins"]), abs=2e-4)
        optimizer.move(changes, found.by_changes, 1e-3, 1.0)
    learner.close()
    assert len(theirs) == 5
    assert found.figures["margin"] > 0.01
