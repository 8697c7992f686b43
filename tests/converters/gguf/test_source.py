"""GGUF in: weights, config, shards, factors, refusals."""

import numpy as np
import pytest
from support.folders import fused
from support.gguf_files import WIDE, add_byte_level, arrays, dequantized, write_gguf
from support.tiny import CONFIGS, random_tensors

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.converters.gguf.architectures.names import gguf_name, huggingface_name
from edgellm.converters.gguf.header import open_gguf
from edgellm.errors import FormatError, TokenizerError, UnsupportedModelError


def every(kind):
    return lambda name: kind


def k_m(name):
    """As llama.cpp mixes Q4_K_M: some matrices in six bits, one left as it is."""
    if "v_proj" in name or name == "lm_head.weight":
        return "Q6_K"
    return "F16" if "o_proj" in name else "Q4_K"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_codes_scales_and_order_are_exact(tmp_path, kind):
    made = write_gguf(tmp_path / "model.gguf", WIDE, kinds=every(kind))
    report = convert(tmp_path / "model.gguf", tmp_path / "made")
    assert report.dtype == "float16"
    assert report.quantization == Quantization({"Q4": 4, "Q5": 5, "Q8": 8}[kind[:2]], 32)
    found = arrays(tmp_path / "made")
    assert found.keys() == made.keys()
    for name, (own, stored) in made.items():
        expected = (
            dequantized(own, stored)
            if found[name].ndim == 2
            else stored.astype(np.float16).astype(np.float32)
        )
        assert np.array_equal(found[name], expected), name
    edgellm.load(tmp_path / "made").close()


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q6_K"])
def test_phi3_falls_into_the_pieces_of_a_llama(tmp_path, kind):
    made = write_gguf(
        tmp_path / "model.gguf", WIDE, kinds=every(kind), spell=fused, architecture="phi3"
    )
    convert(tmp_path / "model.gguf", tmp_path / "made", bits=16)
    found = arrays(tmp_path / "made")
    for layer in range(2):
        for whole, parts in (
            ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            prefix = f"model.layers.{layer}."
            stored = made[f"{prefix}{whole}.weight"]
            joined = np.concatenate([found[f"{prefix}{part}.weight"] for part in parts])
            expected = dequantized(*stored).astype(np.float16).astype(np.float32)
            assert np.array_equal(joined, expected)
    with edgellm.load(tmp_path / "made") as llm:
        assert llm.config.model_type == "llama"
    convert(tmp_path / "model.gguf", tmp_path / "kept")
    assert read_checkpoint(tmp_path / "kept").layers[0].quantizations.keys() >= {"mlp.up_proj"}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_types_stay_what_they_are(tmp_path, kind):
    made = write_gguf(tmp_path / "model.gguf", WIDE, kinds=every(kind))
    report = convert(tmp_path / "model.gguf", tmp_path / "made", bits=16)
    assert report.dtype == {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[kind]
    found = arrays(tmp_path / "made")
    for name, (own, stored) in made.items():
        if found[name].ndim == 2:
            assert np.array_equal(found[name], dequantized(own, stored)), name


def test_a_mixed_file_keeps_what_it_can_and_says_what_it_cannot(tmp_path):
    made = write_gguf(tmp_path / "model.gguf", WIDE, kinds=k_m)
    said = []
    report = convert(
        tmp_path / "model.gguf", tmp_path / "made", progress=lambda step: said.append(step.message)
    )
    assert report.quantization == Quantization(4, 32)
    assert report.exceptions == {
        **{f"model.layers.{layer}.self_attn.v_proj": Quantization(8, 32) for layer in range(2)},
        **{f"model.layers.{layer}.self_attn.o_proj": None for layer in range(2)},
        "lm_head": Quantization(8, 32),
    }
    assert any("3 matrices of type Q6_K" in message for message in said if message)
    found = arrays(tmp_path / "made")
    for name, (kind, stored) in made.items():
        expected = dequantized(kind, stored)
        error = np.sqrt(np.square(found[name] - expected).mean() / np.square(expected).mean())
        assert error < {"Q4_K": 1e-3, "Q6_K": 0.008}.get(kind, 1e-3), (name, error)
    assert (
        edgellm.load(tmp_path / "made").generate("Once", max_tokens=4, temperature=0.0) is not None
    )


def test_a_file_that_mlx_has_no_type_for_becomes_as_many_bits(tmp_path):
    write_gguf(tmp_path / "model.gguf", WIDE, kinds=every("Q3_K"))
    assert convert(tmp_path / "model.gguf", tmp_path / "made").quantization == Quantization(5, 32)
    assert convert(tmp_path / "model.gguf", tmp_path / "other", bits=16).quantization is None


def one(number):
    return np.array([number], np.float32)


def test_a_factor_of_a_matrix_is_applied_and_said(tmp_path):
    more = {
        "blk.0.attn_q.scale": one(0.5),
        "blk.0.attn_q.input_scale": one(3.0),
        "blk.0.attn_k.scale": one(1.0),
        "output.scale": one(2.0),
    }
    kinds = {"model.embed_tokens.weight": "F16", "lm_head.weight": "F16"}
    made = write_gguf(
        tmp_path / "model.gguf", WIDE, kinds=lambda name: kinds.get(name, "NVFP4"), more=more
    )
    said = []
    report = convert(
        tmp_path / "model.gguf", tmp_path / "made", progress=lambda step: said.append(step.message)
    )
    query = "model.layers.0.self_attn.q_proj"
    assert report.quantization == Quantization(4, 16, "nvfp4")
    assert report.exceptions[query] == Quantization(8, 32)
    assert report.errors[query] < 0.01
    assert any("1 matrix of type NVFP4 with a factor" in message for message in said if message)
    found = arrays(tmp_path / "made")
    factors = {f"{query}.weight": 0.5, "lm_head.weight": 2.0}
    for name, (kind, stored) in made.items():
        if kind == "F32":
            continue
        expected = dequantized(kind, stored) * factors.get(name, 1.0)
        error = np.sqrt(np.square(found[name] - expected).mean() / np.square(expected).mean())
        assert error < (0.01 if name == f"{query}.weight" else 1e-6), name


def test_numbers_that_are_none_are_refused_without_a_warning(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, WIDE, kinds=every("Q4_0"))
    data = path.read_bytes()
    tensor = open_gguf(path).tensors["output_norm.weight"]
    nan = b"\x01\x00\xa0\x7f"  # one that signals
    path.write_bytes(data[: tensor.offset] + nan + data[tensor.offset + 4 :])
    with pytest.raises(FormatError, match="not a number"):
        convert(path, tmp_path / "made")


@pytest.mark.parametrize(
    ("number", "kind", "error"),
    [
        (one(np.nan), "NVFP4", FormatError),
        (np.ones(2, np.float32), "NVFP4", FormatError),
        (np.ones(1, np.float16), "NVFP4", FormatError),
        (one(0.5), "Q1_0", UnsupportedModelError),
    ],
)
def test_factors_that_cannot_be_applied_are_refused(tmp_path, number, kind, error):
    path = tmp_path / "model.gguf"
    write_gguf(path, WIDE, kinds=every(kind), more={"blk.0.attn_q.scale": number})
    with pytest.raises(error):
        convert(path, tmp_path / "made")


def test_scales_that_float16_cannot_say_are_refused(tmp_path):
    def huge(kind, rows, columns, seed):
        # 65504 * -128
        return np.tile(np.array([[0xFF, 0x7B, *[7] * 32]], np.uint8), (rows, columns // 32))

    write_gguf(tmp_path / "model.gguf", WIDE, kinds=every("Q8_0"), blocks=huge)
    with pytest.raises(FormatError, match="infinite"):
        convert(tmp_path / "model.gguf", tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_shards_are_one_model_and_a_folder_of_them_too(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    made = write_gguf(folder / "model.gguf", WIDE, kinds=every("Q4_0"), shards=8)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"model-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    convert(folder / names[1], tmp_path / "made")
    convert(folder, tmp_path / "other")
    assert arrays(tmp_path / "made").keys() == made.keys() == arrays(tmp_path / "other").keys()
    (folder / names[2]).unlink()
    with pytest.raises(FormatError, match="lacks the file"):
        convert(folder / names[0], tmp_path / "third")


def test_a_folder_of_two_models_is_refused(tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        write_gguf(folder / name, WIDE)
    with pytest.raises(FormatError, match="not one GGUF model but 2"):
        convert(folder, tmp_path / "made")


def test_names_go_both_ways():
    for name in random_tensors(CONFIGS["qwen3-biases"]):
        assert huggingface_name(gguf_name(name)) == name
    for name in (
        "blk.0.ffn_gate_exps.weight",
        "blk.x.attn_q.weight",
        "blk.01.attn_q.weight",
        "v.blk.0.attn_q.weight",
        "",
    ):
        assert huggingface_name(name) is None


def test_other_models_are_refused(tmp_path):
    def experts(writer):
        writer.add_expert_count(8)

    write_gguf(tmp_path / "moe.gguf", WIDE, metadata=experts)
    with pytest.raises(UnsupportedModelError, match="mixture"):
        convert(tmp_path / "moe.gguf", tmp_path / "made")
    write_gguf(tmp_path / "kind.gguf", WIDE, architecture="gemma")
    with pytest.raises(UnsupportedModelError, match="gemma"):
        convert(tmp_path / "kind.gguf", tmp_path / "made")
    write_gguf(
        tmp_path / "pre.gguf",
        WIDE,
        vocabulary=lambda writer, size: add_byte_level(writer, size, pre="strange"),
    )
    with pytest.raises(TokenizerError, match="strange"):
        convert(tmp_path / "pre.gguf", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_layers_past_the_last_one_are_refused_as_in_llama_cpp(tmp_path):
    count = WIDE["num_hidden_layers"]
    more = {f"blk.{count}.attn_norm.weight": np.ones(WIDE["hidden_size"], np.float32)}
    write_gguf(tmp_path / "a.gguf", WIDE, more=more)
    with pytest.raises(FormatError, match=f"speaks of {count}"):
        convert(tmp_path / "a.gguf", tmp_path / "out")
