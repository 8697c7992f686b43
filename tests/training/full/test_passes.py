"""Every number's derivative is right, whatever the family, and however a step is cut."""

import mlx.core as mx
import numpy as np
import pytest
from support.tiny import CONFIGS, LLAMA, write_model
from support.tiny_families import CONFIGS as MORE_CONFIGS
from support.tiny_families import GEMMA2
from support.training import are_equal, sequences, slopes, torch_loss

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.models.arithmetic import engine_for
from edgellm.settings import LoadSettings
from edgellm.training.learners.full import FullLearner
from edgellm.training.optimizer import AdamW, RateSettings

FAMILIES = {
    "llama": LLAMA,
    "tied": CONFIGS["llama-3.2"],
    "biases": CONFIGS["llama-biases"],
    "qwen3": CONFIGS["qwen3"],
    "gemma2": GEMMA2,
    "olmo2": MORE_CONFIGS["olmo2"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: write_model(tmp_path_factory.mktemp(name) / "model", config)
        for name, config in FAMILIES.items()
    }


def learner(folder, micro_tokens=1000, keeps_results=False):
    kernels = engine_for(LoadSettings(activations="float"))
    return FullLearner(
        read_checkpoint(folder),
        micro_tokens=micro_tokens,
        keeps_results=keeps_results,
        kernels=kernels,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_are_those_of_the_loss(folders, family):
    """Along a random direction, against a difference of the loss itself."""
    model = learner(folders[family])
    numbers = model.initial()
    found = model.gradients(sequences(), numbers, 0)

    def loss_at(moved):
        found = model.loss_of(sequences(), moved)
        return found.total / found.asked

    told, slope = slopes(loss_at, numbers, found.by_changes)
    assert told == pytest.approx(slope, rel=0.02)
    assert all(part.keys() == by.keys() for part, by in zip(numbers, found.by_changes, strict=True))
    model.close()


def test_no_result_depends_on_how_a_step_is_cut(folders):
    whole, cut = learner(folders["tied"]), learner(folders["tied"], micro_tokens=15)
    numbers = whole.initial()
    one, other = (model.gradients(sequences(), numbers, 0) for model in (whole, cut))
    assert one.loss == pytest.approx(other.loss, abs=1e-6)
    for part, same in zip(one.by_changes, other.by_changes, strict=True):
        for name, array in part.items():
            assert mx.allclose(array, same[name], rtol=1e-4, atol=3e-6), name
    whole.close()
    cut.close()


@pytest.mark.parametrize("family", ["biases", "qwen3"])
def test_results_that_are_kept_change_no_bit(folders, family):
    plain, keeping = learner(folders[family]), learner(folders[family], keeps_results=True)
    numbers = plain.initial()
    one, other = (model.gradients(sequences(), numbers, 0) for model in (plain, keeping))
    assert one.loss == other.loss
    assert are_equal(one.by_changes, other.by_changes)
    plain.close()
    keeping.close()


def test_without_kernels_the_same_is_computed(folders):
    checkpoint = read_checkpoint(folders["tied"])
    by_numpy, by_kernels = FullLearner(checkpoint, micro_tokens=100), learner(folders["tied"])
    numbers = by_numpy.initial()
    one, other = (model.gradients(sequences(), numbers, 0) for model in (by_numpy, by_kernels))
    assert one.loss == pytest.approx(other.loss, abs=1e-6)
    for part, same in zip(one.by_changes, other.by_changes, strict=True):
        for name, array in part.items():
            assert mx.allclose(array, same[name], rtol=1e-3, atol=1e-5), name
    by_numpy.close()
    by_kernels.close()


def test_norms_and_biases_do_not_decay(folders):
    numbers = learner(folders["biases"]).initial()
    before = [dict(part) for part in numbers]
    nothing = [{name: mx.zeros_like(array) for name, array in part.items()} for part in numbers]
    AdamW(RateSettings(decay=0.5)).move(numbers, nothing, 0.1, 1.0)
    for part, old in zip(numbers, before, strict=True):
        for name, array in part.items():
            kept = 1.0 if name.endswith(".bias") or "norm" in name else 0.95
            assert mx.allclose(array, kept * old[name], rtol=1e-6), name


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_five_steps_are_those_of_torch(folders, family):
    import torch
    from transformers import AutoModelForCausalLM

    folder = folders[family]
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    parameters = dict(theirs.named_parameters())
    decay = [one for one in parameters.values() if one.ndim > 1]
    rest = [one for one in parameters.values() if one.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-3
    )
    ours = AdamW(RateSettings(decay=0.1))
    model = learner(folder, micro_tokens=20, keeps_results=True)
    numbers = model.initial()
    asked = sequences()
    for step in range(5):
        found = model.gradients(asked, numbers, step)
        loss = torch_loss(theirs, asked)
        optimizer.zero_grad()
        loss.backward()
        assert found.loss == pytest.approx(loss.item(), abs=2e-6 if step == 0 else 1e-4)
        if step == 0:
            largest = max(float(one.grad.abs().max()) for one in parameters.values())
            for index, part in enumerate(found.by_changes):
                for name, array in part.items():
                    full = name if index == len(numbers) - 1 else f"model.layers.{index}.{name}"
                    error = np.abs(np.array(array) - parameters[full].grad.numpy()).max()
                    # of capped scores both round more
                    bound = 1e-4 if family == "gemma2" else 1e-5
                    assert error <= bound * largest, full
        optimizer.step()
        ours.move(numbers, found.by_changes, 1e-3, 1.0)
    model.close()
