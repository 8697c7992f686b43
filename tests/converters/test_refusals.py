"""What the converter will not take, said with the tensor's name; and what it leaves out."""

import re

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.folders import LLAMA, change, tensors_of
from support.tiny import random_tensors, write_model

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.errors import (
    ConfigError,
    EdgeLLMError,
    FormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)


def stale(tensors):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.ones((8,))


def test_tables_of_old_checkpoints_are_left_out(tmp_path):
    source = change(write_model(tmp_path / "source", LLAMA), stale)
    convert(source, tmp_path / "made", bits=16)
    assert tensors_of(tmp_path / "made").keys() == random_tensors(LLAMA).keys()


def test_a_tied_head_is_left_out_if_it_is_the_embedding_and_else_kept(tmp_path):
    tied = LLAMA | {"tie_word_embeddings": True}

    def add_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1

    source = change(write_model(tmp_path / "source", tied), add_head)
    convert(source, tmp_path / "made")
    assert not any(name.startswith("lm_head") for name in tensors_of(tmp_path / "made"))
    change(
        source, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"] + 1})
    )
    said = []
    convert(source, tmp_path / "other", progress=lambda step: said.append(step.message))
    assert "lm_head.scales" in tensors_of(tmp_path / "other")
    assert '"tie_word_embeddings": false' in (tmp_path / "other" / "config.json").read_text()
    assert any("another head is stored" in message for message in said if message)
    change(source, add_head, config={"tie_word_embeddings": False})
    convert(source, tmp_path / "untied")
    assert "lm_head.scales" in tensors_of(tmp_path / "untied")


def test_float64_is_read_as_float32(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    tensors = {name: np.array(tensor) for name, tensor in tensors_of(source).items()}
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    save_file(wide, source / "model.safetensors")
    with pytest.raises(FormatError, match="F64"):
        read_checkpoint(source)
    convert(source, tmp_path / "made", bits=16)
    made = tensors_of(tmp_path / "made")
    assert made.keys() == tensors.keys()
    assert all(np.array_equal(np.array(made[name]), tensors[name]) for name in tensors)


def put(name, value):
    return lambda tensors: tensors.update(
        {name: value(tensors[name]) if callable(value) else value}
    )


WEIGHT = "model.layers.1.mlp.down_proj.weight"
FAULTS = {
    "missing": (lambda tensors: tensors.pop(WEIGHT), "down_proj.weight' is missing"),
    "missing norm": (
        lambda tensors: tensors.pop("model.norm.weight"),
        "model.norm.weight is missing",
    ),
    "missing head": (lambda tensors: tensors.pop("lm_head.weight"), "lm_head.weight' is missing"),
    "unknown": (
        put("model.layers.1.mlp.up_proj.lora_B.weight", mx.ones((2, 2))),
        "layers.1.mlp.up_proj.lora_B.weight",
    ),
    "bias": (put("model.layers.0.mlp.up_proj.bias", mx.ones((128,))), "up_proj.bias"),
    "turned": (put(WEIGHT, lambda weight: mx.contiguous(weight.T)), "down_proj.weight"),
    "norm of a wrong length": (put("model.norm.weight", mx.ones((65,))), "model.norm.weight"),
    "whole numbers": (put(WEIGHT, lambda weight: weight.astype(mx.int32)), "I32"),
    "NaN": (
        put(WEIGHT, lambda weight: mx.where(weight == weight[3, 5], mx.nan, weight)),
        "not a number",
    ),
    "infinite": (
        put(WEIGHT, lambda weight: mx.where(weight == weight[63, 127], mx.inf, weight)),
        "infinite",
    ),
    "minus infinite norm": (
        put("model.norm.weight", lambda norm: mx.concatenate([norm[:63], mx.array([-mx.inf])])),
        "infinite",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("bits", [4, 16])
def test_a_faulty_source_is_refused_and_the_tensor_named(tmp_path, fault, bits):
    edit, said = FAULTS[fault]
    source = change(
        write_model(tmp_path / "source", LLAMA), edit, config={"tie_word_embeddings": False}
    )
    with pytest.raises(FormatError) as caught:
        convert(source, tmp_path / "made", bits=bits)
    assert said in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize("name", ["model.norm.weight", WEIGHT])
def test_only_what_is_wrong_with_a_tensor_is_said(tmp_path, bits, name):
    """Its type is not said to be one of those that are needed where its shape is what is wrong."""
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float16)
    change(source, put(name, lambda value: mx.concatenate([value, value])))
    with pytest.raises(FormatError, match="has the shape") as caught:
        convert(source, tmp_path / "made", bits=bits)
    assert "F16" not in caught.value.message
    change(source, put(name, lambda value: value[: len(value) // 2].astype(mx.int32)))
    with pytest.raises(FormatError, match="is stored as I32") as caught:
        convert(source, tmp_path / "made", bits=bits)
    assert "shape" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("bits", [4, 16])
def test_values_too_large_for_the_type_are_refused(tmp_path, bits):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.bfloat16)
    change(source, put(WEIGHT, lambda weight: weight * 1e6))
    with pytest.raises(FormatError, match="too large for float16") as caught:
        convert(source, tmp_path / "made", bits=bits, dtype="float16")
    assert "down_proj" in caught.value.message
    convert(source, tmp_path / "made", bits=bits)


@pytest.mark.parametrize("name", ["nosuch.gguf", "./x", "some/where/else"])
def test_a_path_that_leads_nowhere_is_said_to_be_one(tmp_path, name):
    with pytest.raises(
        ModelNotFoundError, match=f"^there is no file or folder {re.escape(name)}$"
    ) as caught:
        convert(name, tmp_path / "made")
    assert caught.value.hint


def test_a_name_that_is_no_path_is_taken_for_a_models(tmp_path):
    with pytest.raises(ModelNotFoundError, match="there is no model 'nosuch'"):
        convert("nosuch", tmp_path / "made")


def test_other_models_and_settings_are_refused(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    for settings in (
        {"bits": 7},
        {"bits": True},
        {"group_size": 48},
        {"dtype": "int8"},
        {"bits": 16, "group_size": 64},
    ):
        with pytest.raises(ConfigError):
            convert(source, tmp_path / "made", **settings)
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "nothing", tmp_path / "made")
    with pytest.raises(FormatError, match="is a file"):
        convert(source / "model.safetensors", tmp_path / "made")
    for change_of_config, error in (
        ({"model_type": "gpt2"}, UnsupportedModelError),
        (
            {"quantization_config": {"quant_method": "hqq", "bits": 4, "group_size": 128}},
            UnsupportedModelError,
        ),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
            FormatError,  # nothing is packed
        ),
        ({"num_hidden_layers": 10**9}, FormatError),
        ({"hidden_size": -1}, FormatError),
    ):
        change(source, lambda tensors: None, config=LLAMA | change_of_config)
        with pytest.raises(error):
            convert(source, tmp_path / "made")
    (source / "config.json").write_text("{")
    with pytest.raises(FormatError):
        convert(source, tmp_path / "made")
    (source / "config.json").unlink()
    with pytest.raises(EdgeLLMError):
        convert(source, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
