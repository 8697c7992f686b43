"""The step: derivatives are right, and are the same wherever the layers are."""

from dataclasses import replace

import numpy as np
import pytest
from support.tiny import CONFIGS, LAYERS, LLAMA, write_model
from support.tiny_families import GEMMA2
from support.training import (
    LORA,
    are_equal,
    are_near,
    in_four_bits,
    moved,
    open_training,
    sequences,
    slopes,
    torch_loss,
)

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.training.learners.adapted_model import AdaptedModel
from edgellm.training.learners.token_loss import step_gradients, step_loss
from edgellm.training.low_rank import initial_changes, targets_named
from edgellm.training.micro_batch import micro_batches


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each family that computes in its own way, in 4 bits."""
    families = {"llama": LLAMA, "gemma2": GEMMA2}
    return {
        name: in_four_bits(tmp_path_factory.mktemp(name), own) for name, own in families.items()
    }


def changes_of(folder, lora=LORA):
    """Numbers of which none is 0, so that all derivatives count."""
    return moved(initial_changes(read_checkpoint(folder).config, lora, seed=3), 0.02)


def dora_changes(folder, opened, lora):
    """Numbers of a DoRA as training begins."""
    learner = AdaptedModel(opened, read_checkpoint(folder).config, lora, micro_tokens=1000, seed=0)
    return learner.initial()


def computed(folder, *, most_tokens=1000, rounds=1, **where):
    """The loss and derivatives of a step, and the layers that were read in the last round."""
    opened = open_training(folder, **where)
    try:
        batches = micro_batches(sequences(), most_tokens)
        changes = changes_of(folder, where.get("lora", LORA))
        for _ in range(rounds):
            before = opened.model.layers.reads
            found = step_gradients(opened.model, batches, changes)
        return found, opened.model.layers.reads - before
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("family", "targets"), [("llama", "all"), ("llama", "q,v"), ("gemma2", "all")]
)
def test_derivatives_are_those_of_the_loss(folders, family, targets):
    folder, lora = folders[family], replace(LORA, targets=targets_named(targets))
    found, _ = computed(folder, pinned=range(LAYERS), lora=lora)
    opened = open_training(folder, pinned=range(LAYERS), lora=lora)
    batches = micro_batches(sequences(), 1000)

    def loss_at(numbers):
        total, asked = step_loss(opened.model, batches, numbers)
        opened.model.layers.restart()
        return total / asked

    told, slope = slopes(loss_at, changes_of(folder, lora), found.by_changes)
    opened.close()
    assert told == pytest.approx(slope, rel=2e-2, abs=2e-3)


@pytest.fixture(scope="module")
def whole(folders):
    """A step of the llama with all layers in memory, of which nothing is computed again."""
    return computed(folders["llama"], pinned=range(LAYERS), recompute=False)[0]


@pytest.mark.parametrize(("pinned", "buffers"), [(0, 2), (0, 3), (2, 2), (3, 2)])
def test_paged_layers_give_the_same_bits_and_read_the_least(folders, whole, pinned, buffers):
    paged, reads = computed(folders["llama"], pinned=range(pinned), buffers=buffers, rounds=2)
    assert paged.loss == whole.loss
    assert are_equal(paged.by_changes, whole.by_changes)
    streamed = LAYERS - pinned
    assert reads == 2 * (streamed - min(buffers, streamed))


@pytest.mark.parametrize("on_disk", [1, LAYERS - 1, LAYERS])
def test_inputs_that_are_kept_in_a_file_give_the_same_bits(folders, whole, on_disk):
    found, _ = computed(folders["llama"], on_disk=on_disk, rounds=2)
    assert found.loss == whole.loss
    assert are_equal(found.by_changes, whole.by_changes)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_threads(folders, whole, threads):
    found, _ = computed(folders["llama"], pinned=range(LAYERS), threads=threads)
    assert found.loss == whole.loss
    assert are_equal(found.by_changes, whole.by_changes)


def test_int8_activations_give_the_same_bits_paged_too(folders):
    whole, _ = computed(folders["llama"], pinned=range(LAYERS), rounds=2, activations="int8")
    paged, _ = computed(folders["llama"], activations="int8")
    assert paged.loss == whole.loss
    assert are_equal(paged.by_changes, whole.by_changes)


def test_results_do_not_depend_on_how_a_step_is_cut(folders, whole):
    parts, _ = computed(folders["llama"], most_tokens=1)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert are_near(parts.by_changes, whole.by_changes)


def test_only_the_last_layers_change_where_that_is_asked(folders):
    lora = LORA.__class__(rank=2, alpha=4, dropout=0.0, targets=LORA.targets, layers=2)
    opened = open_training(folders["llama"], lora=lora)
    config = read_checkpoint(folders["llama"]).config
    changes = initial_changes(config, lora, seed=0)
    batches = micro_batches(sequences(), 1000)
    step_gradients(opened.model, batches, changes)
    before = opened.model.layers.reads
    found = step_gradients(opened.model, batches, changes)
    reads = opened.model.layers.reads - before
    opened.close()
    assert [bool(change) for change in found.by_changes] == [False, False, True, True]
    assert reads <= 4, "it turns at the lowest layer that is changed"


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_five_steps_are_those_of_peft_and_torch(tmp_path):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    from edgellm.training.optimizer import AdamW, RateSettings

    source = write_model(tmp_path / "source", LLAMA)
    folder = tmp_path / "sixteen"
    convert(source, folder, bits=16)
    opened = open_training(folder, pinned=(1,))
    config = read_checkpoint(folder).config
    changes = initial_changes(config, LORA, seed=0)
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    names = [target.rpartition(".")[2] for target in LORA.targets]
    model = peft.get_peft_model(
        plain, peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=names)
    )
    parameters = dict(model.named_parameters())
    for layer, change in enumerate(changes):
        for name, array in change.items():
            key = f"base_model.model.model.layers.{layer}.{name}.default.weight"
            parameters[key].data.copy_(torch.tensor(np.array(array)))
    theirs = torch.optim.AdamW(
        [one for one in parameters.values() if one.requires_grad], lr=1e-3, weight_decay=0.01
    )
    ours = AdamW(RateSettings(decay=0.01))
    asked = sequences()
    for _ in range(5):
        found = step_gradients(opened.model, micro_batches(asked, 20), changes)
        ours.move(changes, found.by_changes, 1e-3, 1.0)
        theirs.zero_grad()
        loss = torch_loss(model, asked)
        loss.backward()
        assert found.loss == pytest.approx(loss.item(), abs=2e-5)
        theirs.step()
    opened.close()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("config", ["llama-2", "llama-biases"])
def test_five_steps_of_dora_are_those_of_peft(tmp_path, config):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    from edgellm.training.optimizer import AdamW, RateSettings

    lora = replace(LORA, dora=True)
    source = write_model(tmp_path / "source", CONFIGS[config])
    folder = tmp_path / "sixteen"
    convert(source, folder, bits=16)
    opened = open_training(folder, pinned=(1,), lora=lora)
    changes = dora_changes(folder, opened, lora)
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    names = [target.rpartition(".")[2] for target in lora.targets]
    model = peft.get_peft_model(
        plain,
        peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=names, use_dora=True),
    )
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    for layer, change in enumerate(changes):
        for name, array in change.items():
            key = f"base_model.model.model.layers.{layer}.{name}.default.weight"
            if name.endswith("magnitude_vector"):  # they begin as the lengths that rows have
                lengths = parameters[key].detach().numpy()
                np.testing.assert_allclose(np.array(array), lengths, rtol=1e-5)
            else:
                parameters[key].data.copy_(torch.tensor(np.array(array)))
    theirs = torch.optim.AdamW(
        [
            {"params": [one for one in parameters.values() if one.ndim > 1], "weight_decay": 0.01},
            {"params": [one for one in parameters.values() if one.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-3,
    )
    ours = AdamW(RateSettings(decay=0.01))
    asked = sequences(vocabulary=250)
    for step in range(5):
        found = step_gradients(opened.model, micro_batches(asked, 20), changes)
        theirs.zero_grad()
        loss = torch_loss(model, asked)
        loss.backward()
        assert found.loss == pytest.approx(loss.item(), abs=2e-5)
        if step == 0:
            grads = {key: one.grad.numpy() for key, one in parameters.items()}
            largest = max(np.abs(one).max() for one in grads.values())
            for layer, change in enumerate(found.by_changes):
                for name, array in change.items():
                    key = f"base_model.model.model.layers.{layer}.{name}.default.weight"
                    assert np.abs(np.array(array) - grads[key]).max() <= 1e-4 * largest
        ours.move(changes, found.by_changes, 1e-3, 1.0)
        theirs.step()
    opened.close()
