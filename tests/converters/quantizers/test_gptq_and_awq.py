"""GPTQ and AWQ in: codes kept, scales exact in float32, what cannot be kept, refusals."""

import json
from functools import partial

import numpy as np
import pytest
from support.gguf_files import arrays
from support.packed_models import WIDE, awq_parts, converted, gptq_parts, write_folder, write_packed

import edgellm
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.converters.quantizers.own_config_files import own_weight_names
from edgellm.errors import FormatError, UnsupportedModelError

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}

PHI3 = WIDE | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": 0}
PHI3_SHAPES = {
    "model.embed_tokens.weight": (320, 256),
    "model.norm.weight": (256,),
    "lm_head.weight": (320, 256),
    "model.layers.0.self_attn.qkv_proj.weight": (512, 256),
    "model.layers.0.self_attn.o_proj.weight": (256, 256),
    "model.layers.0.mlp.gate_up_proj.weight": (1024, 256),
    "model.layers.0.mlp.down_proj.weight": (256, 512),
    "model.layers.0.input_layernorm.weight": (256,),
    "model.layers.0.post_attention_layernorm.weight": (256,),
}


def relative_error(found, expected):
    """The root mean square of the change over that of the weights."""
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize(
    ("bits", "group", "version", "symmetric"),
    [
        (4, 128, "gptq", True),
        (4, 128, "gptq", False),
        (4, 32, "gptq_v2", False),
        (4, 256, "gptq", False),
        (4, -1, "gptq", False),
        (2, 64, "gptq", False),
        (3, 128, "gptq_v2", False),
        (8, 128, "gptq", False),
        (8, 64, "gptq_v2", True),
    ],
)
def test_gptq_is_exact_with_float32_scales(tmp_path, bits, group, version, symmetric):
    block = GPTQ | {"bits": bits, "group_size": group, "checkpoint_format": version}
    parts = partial(gptq_parts, bits=bits, group=group, version=version, symmetric=symmetric)
    values, found, report, _ = converted(tmp_path, block, parts, dtype="float32")
    assert report.quantization == Quantization(bits, {-1: 128, 256: 128}.get(group, group))
    assert found.keys() == values.keys()
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name


@pytest.mark.parametrize("group", [32, 128, -1])
def test_awq_is_exact_with_float32_scales(tmp_path, group):
    block = AWQ | {"group_size": group}
    parts = partial(awq_parts, group=group)
    values, found, report, _ = converted(tmp_path, block, parts, dtype="float32")
    assert report.quantization == Quantization(4, {-1: 128}.get(group, group))
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name


def test_in_16_bits_symmetric_gptq_stays_exact_and_zero_points_are_rounded(tmp_path):
    symmetric = converted(tmp_path / "a", GPTQ, gptq_parts)
    values, found, report, said = symmetric
    assert report.dtype == "float16"
    assert any("7 matrices keep the codes of gptq" in text for text in said)
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name
    values, found, report, said = converted(tmp_path / "b", AWQ, awq_parts)
    assert any("--dtype float32 keeps them exactly" in text for text in said)
    errors = [relative_error(found[name], values[name]) for name in values if "_proj" in name]
    assert 0 < max(errors) < 3e-4


def test_in_bfloat16_scales_are_rounded_too(tmp_path):
    values, found, _, _ = converted(tmp_path, AWQ, awq_parts, dtype="bfloat16")
    errors = [relative_error(found[name], values[name]) for name in values if "_proj" in name]
    assert max(errors) < 4e-3


def test_activation_order_is_dequantized_and_said(tmp_path):
    block = GPTQ | {"desc_act": True}
    parts = partial(gptq_parts, shuffled=True, symmetric=False)
    values, found, report, said = converted(tmp_path / "a", block, parts, bits=16, dtype="float32")
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name
    assert any("activation order" in text for text in said)
    values, found, report, _ = converted(tmp_path / "b", block, parts)
    assert report.quantization == Quantization(6, 64)
    assert max(report.errors.values()) < 0.03
    assert "lm_head" in report.exceptions  # which was not quantized, and stays so


def test_other_bits_quantize_again(tmp_path):
    _, _, report, said = converted(tmp_path, AWQ, awq_parts, bits=8, group_size=64)
    assert report.quantization == Quantization(8, 64)
    assert max(report.errors.values()) < 0.01
    assert any("adds errors" in text for text in said)


def test_biases_of_zeros_that_autogptq_writes_are_left_out(tmp_path):
    zeros = np.zeros(256, np.float16)
    name = "model.layers.0.self_attn.o_proj.bias"
    write_packed(tmp_path / "packed", GPTQ, gptq_parts, extra={name: zeros})
    convert(tmp_path / "packed", tmp_path / "made")
    assert name not in arrays(tmp_path / "made")
    write_packed(tmp_path / "other", GPTQ, gptq_parts, extra={name: zeros + 1})
    with pytest.raises(FormatError, match="does not account for"):
        convert(tmp_path / "other", tmp_path / "never")


@pytest.mark.torch
@pytest.mark.parametrize(("block", "parts"), [(GPTQ, gptq_parts), (AWQ, awq_parts)])
def test_logits_are_those_of_transformers_with_the_same_numbers(tmp_path, block, parts):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    values, _, _, _ = converted(tmp_path, block, parts, dtype="float32")
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    del config["quantization_config"], config["dtype"]
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict({name: torch.tensor(array) for name, array in values.items()})
    ids = [0, 20, 33, 7, 150]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    with edgellm.load(tmp_path / "made", activations="float", kv_bits=32) as llm:
        found = np.array(llm.logits(ids))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"checkpoint_format": "marlin"}, "GPTQ's form"),
        ({"quant_method": "aqlm"}, "aqlm"),
        ({"quant_method": "awq", "version": "gemv"}, "AWQ's layout"),
        ({"quant_method": "awq", "bits": 3}, "3 bits"),
        ({"bits": 3}, "read in two ways"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, change, text):
    parts = gptq_parts
    if change == {"bits": 3}:
        parts = partial(gptq_parts, bits=3)
    write_packed(tmp_path / "packed", GPTQ | change, parts)
    with pytest.raises(UnsupportedModelError, match=text) as refusal:
        convert(tmp_path / "packed", tmp_path / "made")
    assert "convert the model that it was made from" in refusal.value.hint


@pytest.mark.parametrize("part", ["qzeros", "scales", "g_idx"])
def test_a_part_of_another_shape_is_refused(tmp_path, part):
    write_packed(
        tmp_path / "packed",
        GPTQ,
        gptq_parts,
        extra={f"model.layers.0.mlp.up_proj.{part}": np.zeros((3, 5), np.int32)},
    )
    with pytest.raises(FormatError, match="up_proj"):
        convert(tmp_path / "packed", tmp_path / "made")


def test_fused_matrices_of_phi3_are_split_with_their_codes(tmp_path):
    random = np.random.RandomState(2)
    config = PHI3
    stored, values = {}, {}
    for name, shape in PHI3_SHAPES.items():
        if "_proj" in name:
            made, matrix = gptq_parts(random, *shape)
            path = name.removesuffix(".weight")
            stored |= {f"{path}.{part}": array for part, array in made.items()}
            values[name] = matrix
        else:
            stored[name] = random.standard_normal(shape).astype(np.float16)
    (tmp_path / "packed").mkdir()
    write_folder(tmp_path / "packed", config | {"quantization_config": GPTQ}, stored)
    report = convert(tmp_path / "packed", tmp_path / "made")
    assert report.quantization == Quantization(4, 128)
    assert report.dtype == "float16"
    found = arrays(tmp_path / "made")
    layer = "model.layers.0."
    fused = [found[f"{layer}self_attn.{letter}_proj.weight"] for letter in "qkv"]
    assert np.array_equal(np.concatenate(fused), values[f"{layer}self_attn.qkv_proj.weight"])
    fused = [found[f"{layer}mlp.{name}_proj.weight"] for name in ("gate", "up")]
    assert np.array_equal(np.concatenate(fused), values[f"{layer}mlp.gate_up_proj.weight"])


@pytest.mark.parametrize(
    ("file", "said", "name", "parts"),
    [
        (
            "quantize_config.json",
            {"bits": 4, "group_size": 128, "damp_percent": 0.01, "desc_act": False, "sym": True},
            "gptq_model-4bit-128g.safetensors",
            partial(gptq_parts, bits=4, group=128, version="gptq", symmetric=True),
        ),
        (
            "quant_config.json",
            {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
            "model.safetensors",
            awq_parts,
        ),
    ],
)
def test_settings_in_a_file_of_their_own(tmp_path, file, said, name, parts):
    values = write_packed(tmp_path / "packed", None, parts)
    folder = tmp_path / "packed"
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / file).write_text(json.dumps(said))
    (folder / "model.safetensors").rename(folder / name)
    if name.startswith("gptq"):
        (folder / "gptq_model-4bit-32g.safetensors").write_bytes(b"another group's")
    report = convert(folder, tmp_path / "made", dtype="float32")
    assert report.quantization == Quantization(4, 128)
    found = arrays(tmp_path / "made")
    for path, expected in values.items():
        assert np.array_equal(found[path], expected), path


def test_marlins_layout_in_a_file_of_its_own_is_refused(tmp_path):
    parts = partial(gptq_parts, bits=4, group=128, version="gptq", symmetric=True)
    write_packed(tmp_path / "packed", None, parts)
    said = {"bits": 4, "group_size": 128, "is_marlin_format": True}
    (tmp_path / "packed" / "quantize_config.json").write_text(json.dumps(said))
    with pytest.raises(UnsupportedModelError, match="marlin"):
        convert(tmp_path / "packed", tmp_path / "made")


@pytest.mark.parametrize(
    ("said", "files", "pattern"),
    [
        ({"bits": 4, "group_size": 128}, ["model.safetensors", "b.safetensors"], None),
        ({"model_file_base_name": "own"}, ["own.safetensors", "b.safetensors"], "own*.safetensors"),
        ({"bits": 4}, ["vicuna-4bit.safetensors"], "vicuna-4bit.safetensors"),
        ({"bits": 4}, ["a.safetensors", "b.safetensors"], None),
    ],
)
def test_names_of_autogptqs_files(tmp_path, said, files, pattern):
    (tmp_path / "quantize_config.json").write_text(json.dumps(said))
    for name in files:
        (tmp_path / name).write_bytes(b"")
    assert own_weight_names(tmp_path) == pattern
