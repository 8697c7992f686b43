"""What was learned is a model folder that others open, written as its base was."""

import mlx.core as mx
import numpy as np
import pytest
from support.folders import LLAMA, fused, rewritten, tensors_of
from support.tiny import CONFIGS, write_model

from edgellm import load
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.training.full.model_folder import LearnedFolder
from edgellm.training.full.weights import read_numbers


def written(source, out, *, dtype=None, by=0.0):
    """A folder of a model's numbers, each moved a little."""
    checkpoint = read_checkpoint(source)
    numbers = read_numbers(checkpoint)
    out.mkdir()
    moved = [{name: array + by for name, array in part.items()} for part in numbers]
    LearnedFolder(checkpoint, dtype).write(out, moved)
    return out


@pytest.mark.parametrize("name", ["llama-2", "llama-3.2", "qwen3-biases"])
def test_every_tensor_is_written_under_its_own_name(tmp_path, name):
    source = write_model(tmp_path / "source", CONFIGS[name])
    out = written(source, tmp_path / "out", by=0.25)
    before, after = tensors_of(source), tensors_of(out)
    assert before.keys() == after.keys()
    for tensor, array in before.items():
        assert mx.array_equal(array + 0.25, after[tensor]), tensor
    files = {file.name for file in out.iterdir()}
    assert files == {file.name for file in source.iterdir()}


def test_matrices_that_are_stored_as_one_are_written_as_one(tmp_path):
    plain = write_model(tmp_path / "plain", LLAMA)
    source = rewritten(plain, tmp_path / "fused", fused, {"model_type": "phi3"})
    out = written(source, tmp_path / "out", by=0.25)
    before, after = tensors_of(source), tensors_of(out)
    assert before.keys() == after.keys()
    assert all(mx.array_equal(array + 0.25, after[name]) for name, array in before.items())


def test_another_type_is_written_and_said(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    out = written(source, tmp_path / "out", dtype="bfloat16")
    assert {array.dtype for array in tensors_of(out).values()} == {mx.bfloat16}
    assert read_checkpoint(out).folder.config["dtype"] == "bfloat16"
    with load(out) as llm:
        assert llm.generate("Once upon a time", max_tokens=4)


@pytest.mark.torch
def test_transformers_opens_it(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    source = write_model(tmp_path / "source", CONFIGS["llama-3.2"])
    out = written(source, tmp_path / "out")
    ids = torch.tensor([[3, 50, 7, 120, 9]])
    one, other = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits.detach()
        for folder in (source, out)
    )
    assert np.array_equal(one.numpy(), other.numpy())
