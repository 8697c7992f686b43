"""The libraries learn the same from the same tokens, and their arrays are counted."""

import mlx.core as mx
import pytest
from support.tiny import LLAMA, write_model
from support.training_tasks import tiny_task, trained

from edgellm.bench.training.edgellm_trainer import EdgellmTrainer
from edgellm.converters import convert

NUMBERS = 4 * 4 * ((64 + 64) + (128 + 64))
"""Of four layers: rank 4 times inputs and outputs of q and down."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same model in 16 and in 4 bits."""
    config = LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 2}
    plain = write_model(tmp_path_factory.mktemp("model") / "plain", config, dtype=mx.bfloat16)
    convert(plain, plain.with_name("four"), bits=4, group_size=32)
    return {16: plain, 4: plain.with_name("four")}


@pytest.fixture(scope="module")
def ours(folders):
    """Losses of edgellm's own training, and its sizes, by the bits of the model."""
    return {
        bits: trained(EdgellmTrainer, tiny_task(folder, "edgellm"))
        for bits, folder in folders.items()
    }


def test_memory_and_parts_change_no_loss(folders, ours):
    losses, sizes = ours[4]
    assert losses[3] < losses[0] - 0.05
    paged, in_buffers = trained(EdgellmTrainer, tiny_task(folders[4], "edgellm", paged=True))
    assert paged == losses
    assert (sizes.pinned, in_buffers.pinned) == (4, 0)
    assert in_buffers.weights < sizes.weights
    again, computed = trained(EdgellmTrainer, tiny_task(folders[4], "edgellm", checkpointing=True))
    assert again == losses
    assert computed.checkpointing
    assert in_buffers.checkpointing
    in_parts, _ = trained(EdgellmTrainer, tiny_task(folders[4], "edgellm", accumulation=4))
    assert in_parts == pytest.approx(losses, abs=1e-5)
    assert sizes.numbers == NUMBERS
    assert (sizes.gradients, sizes.optimizer) == (4 * NUMBERS, 8 * NUMBERS)


@pytest.mark.parametrize("bits", [16, 4])
@pytest.mark.parametrize("parts", [1, 2])
def test_mlx_lm_learns_the_same(folders, ours, bits, parts):
    pytest.importorskip("mlx_lm")
    from edgellm.bench.training.mlx_lm_trainer import MLXLMTrainer

    losses, sizes = trained(MLXLMTrainer, tiny_task(folders[bits], "mlx-lm", accumulation=parts))
    assert losses == pytest.approx(ours[bits][0], abs=2e-4)
    assert sizes.numbers == NUMBERS
    assert sizes.gradients == 4 * NUMBERS
    assert sizes.optimizer >= 8 * NUMBERS


@pytest.mark.torch
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("more", [{}, {"checkpointing": True}, {"accumulation": 2}])
def test_peft_learns_the_same(folders, ours, more):
    pytest.importorskip("peft")
    from edgellm.bench.training.torch_trainer import TorchTrainer

    losses, sizes = trained(TorchTrainer, tiny_task(folders[16], "peft", **more))
    assert losses == pytest.approx(ours[16][0], abs=2e-4)
    assert sizes.numbers == NUMBERS
    assert sizes.gradients == 4 * NUMBERS
    assert sizes.optimizer >= 8 * NUMBERS


@pytest.mark.torch
@pytest.mark.filterwarnings("default")
def test_full_training_of_torch_is_that_of_mlx_lm(folders):
    pytest.importorskip("transformers")
    pytest.importorskip("mlx_lm")
    from edgellm.bench.training.mlx_lm_trainer import MLXLMTrainer
    from edgellm.bench.training.torch_trainer import TorchTrainer

    theirs, of_torch = trained(TorchTrainer, tiny_task(folders[16], "peft", method="full"))
    others, of_mlx = trained(MLXLMTrainer, tiny_task(folders[16], "mlx-lm", method="full"))
    assert others == pytest.approx(theirs, abs=1e-3)
    assert of_torch.numbers == of_mlx.numbers
    # the derivatives are as large as the model
    assert of_torch.gradients == 4 * of_torch.numbers
    losses, own = trained(EdgellmTrainer, tiny_task(folders[16], "edgellm", method="full"))
    assert losses == pytest.approx(theirs, abs=1e-3)
    assert own.numbers == of_torch.numbers
    assert own.weights == own.gradients == of_torch.gradients
