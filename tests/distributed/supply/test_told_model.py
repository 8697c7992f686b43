"""What a machine is told of a model makes the same model there, of any family; lies are refused."""

import json

import pytest
from support.tiny import CONFIGS, write_model
from support.tiny_families import CONFIGS as MORE_CONFIGS

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.supply.told_model import checkpoint_from, name_of, told_of
from edgellm.errors import FormatError

ALL = {**CONFIGS, **MORE_CONFIGS}


def forms(checkpoint):
    """Everything of a model but where its bytes lie."""
    groups = [
        (
            group.layout,
            {name: (item.dtype, item.shape) for name, item in group.tensors.items()},
            group.quantizations,
        )
        for group in checkpoint.groups
    ]
    return checkpoint.config, groups, checkpoint.dtype


@pytest.mark.parametrize("kind", ALL)
def test_every_family(kind, tmp_path):
    folder = write_model(tmp_path / "model", ALL[kind])
    model = read_checkpoint(folder)
    told = json.loads(json.dumps(told_of(model)))
    other = checkpoint_from(told, tmp_path / "nowhere")
    assert forms(other) == forms(model)
    assert name_of(told_of(other)) == name_of(told)


LIES = {
    "no config": {"config": None},
    "config": {"config": "[]"},
    "no tensors": {"tensors": []},
    "type": {"model.norm.weight": ["F99", [64]]},
    "shape": {"model.norm.weight": ["F32", [-1]]},
    "size": {"model.norm.weight": ["F32", [1 << 60]]},
    "no shape": {"model.norm.weight": ["F32", None]},
    "claim": {"model.norm.weight": 5},
    "axes": {"model.norm.weight": ["F32", [1] * 99]},
    "another shape": {"model.norm.weight": ["F32", [63]]},
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_model_is_refused(lie, tiny_folder, tmp_path):
    told = told_of(read_checkpoint(tiny_folder("llama-3.2")))
    changes = LIES[lie]
    if changes.keys() <= {"config", "tensors"}:
        told |= changes
    else:
        told["tensors"] |= changes
    with pytest.raises(FormatError) as raised:
        checkpoint_from(told, tmp_path)
    assert raised.value.hint
