"""GGUF in: weights, config, rotary order, shards, tokenizers."""

import json
import math
from pathlib import Path

import gguf
import numpy as np
import pytest
from support.folders import fused
from support.gguf_files import SAMPLE_TEXTS, WIDE, add_byte_level, arrays, dequantized, write_gguf
from support.tiny import CONFIGS, LLAMA3_SCALING, random_tensors

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.dialects.rotary import RopeScaling
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert, export
from edgellm.converters.gguf.header import open_gguf
from edgellm.converters.gguf.metadata import Metadata
from edgellm.converters.gguf.model_config import (
    gguf_name,
    huggingface_name,
)
from edgellm.converters.gguf.rope_scaling import read_rope_scaling, rope_factors
from edgellm.converters.tokenizers.pretokenizers import (
    PATTERNS,
    pre_tokenizer_json,
    pre_tokenizer_of,
)
from edgellm.errors import FormatError, TokenizerError, UnsupportedModelError
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.detokenizer import steps_of

NO_METADATA = Metadata(Path("x.gguf"), {})


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


@pytest.mark.parametrize("attention", [None, 0.8])
def test_yarn_is_llama_cpps(tmp_path, attention):
    def say(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(64)
        if attention:
            writer.add_rope_scaling_attn_factors(attention)

    write_gguf(tmp_path / "model.gguf", CONFIGS["qwen3"], metadata=say)
    convert(tmp_path / "model.gguf", tmp_path / "made", bits=16)
    scaling = read_checkpoint(tmp_path / "made").config.rope_scaling
    assert (scaling.kind, scaling.factor, scaling.beta_fast) == ("yarn", 4.0, 32.0)
    assert scaling.original_max_position_embeddings == 64
    expected = (attention or 1.0) * (1 + 0.1 * math.log(4))
    assert scaling.attention_factor == pytest.approx(expected, rel=1e-6)
    export(tmp_path / "made", tmp_path / "again.gguf")
    convert(tmp_path / "again.gguf", tmp_path / "twice", bits=16)
    assert read_checkpoint(tmp_path / "twice").config.rope_scaling.attention_factor == (
        pytest.approx(scaling.attention_factor, rel=1e-6)
    )


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


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling(kind="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0),
        RopeScaling(
            kind="llama3",
            factor=8.0,
            low_freq_factor=1.5,
            high_freq_factor=6.0,
            original_max_position_embeddings=3000,
        ),
        RopeScaling(kind="linear", factor=4.0),
    ],
)
def test_rotary_factors_become_the_scaling_that_made_them(scaling):
    config = {"model_type": "llama", "head_dim": 128, "rope_theta": 500000.0}
    factors = rope_factors(128, 500000.0, scaling)
    said = read_rope_scaling(NO_METADATA, config, factors)
    assert said["rope_type"] == scaling.kind
    found = RopeScaling(**{"kind": said.pop("rope_type"), **said})
    np.testing.assert_allclose(rope_factors(128, 500000.0, found), factors, rtol=1e-4)


def test_rotary_factors_of_another_kind_are_refused():
    config = {"model_type": "llama", "head_dim": 128, "rope_theta": 500000.0}
    with pytest.raises(UnsupportedModelError, match="rotary"):
        read_rope_scaling(NO_METADATA, config, np.linspace(1, 9, 64, dtype=np.float32))
    with pytest.raises(UnsupportedModelError, match="longrope"):
        read_rope_scaling(
            Metadata(Path("x.gguf"), {"llama.rope.scaling.type": "longrope"}), config, None
        )


@pytest.mark.parametrize(
    ("keys", "factor"),
    [
        ({"factor": 4.0}, 4.0),
        ({"type": "linear", "factor": 4.0}, 4.0),
        ({"type": "none", "factor": 4.0}, None),
        ({"factor": 0.0}, None),
        ({"factor": 1.0}, None),
        ({}, None),
    ],
)
def test_a_factor_without_a_type_is_linear(keys, factor):
    metadata = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    config = {"model_type": "llama", "head_dim": 128, "rope_theta": 500000.0}
    said = read_rope_scaling(Metadata(Path("x.gguf"), metadata), config, None)
    assert said == (factor and {"rope_type": "linear", "factor": factor})
    older = {"llama.rope.scale_linear": 2.0, **metadata}
    said = read_rope_scaling(Metadata(Path("x.gguf"), older), config, None)
    assert (said is None) == (keys.get("type") == "none" or keys.get("factor") in (0.0, 1.0))


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


@pytest.mark.parametrize("splitting", PATTERNS)
def test_each_way_to_cut_a_text_is_known_again(splitting):
    assert pre_tokenizer_of(steps_of(pre_tokenizer_json(splitting), "pretokenizers")) == splitting


@pytest.mark.parametrize("splitting", PATTERNS)
def test_byte_level_tokenizers_come_in(tmp_path, splitting):
    def metadata(writer):
        writer.add_chat_template(
            [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
        )

    def vocabulary(writer, size):
        add_byte_level(writer, size, pre=splitting)

    path = tmp_path / "model.gguf"
    write_gguf(path, CONFIGS["llama-2"], vocabulary=vocabulary, metadata=metadata)
    convert(path, tmp_path / "made")
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    assert tokenizer.encode("<|begin|>a<|end|>", add_special_tokens=False)[::2] == [0, 1]
    assert tokenizer.encode("", add_special_tokens=True) == [0]
    for text in SAMPLE_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.chat_template == "A"


def test_ends_that_llama_cpp_knows_by_their_text_end_an_answer(tmp_path):
    def vocabulary(writer, size):
        add_byte_level(writer, size, ends={510: ("<|im_end|>", 1), 511: ("<|fim_pad|>", 3)})

    path = tmp_path / "model.gguf"
    write_gguf(path, WIDE, vocabulary=vocabulary)
    said = []
    convert(path, tmp_path / "made", progress=lambda step: said.append(step.message))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["eos_token_id"] == [1, 510, 511]
    assert any(message and "'<|im_end|>', '<|fim_pad|>'" in message for message in said)
    tokenizer = Tokenizer.from_folder(tmp_path / "made")
    # a plain token in the file, and control all the same
    assert tokenizer.encode("a<|im_end|>", add_special_tokens=False)[1:] == [510]
    assert tokenizer.decode([510]) == ""


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


def test_llama_3_s_scaling_is_what_the_tensor_says():
    scaling = RopeScaling(
        **{"kind": LLAMA3_SCALING["rope_type"]}
        | {k: v for k, v in LLAMA3_SCALING.items() if k != "rope_type"}
    )
    factors = rope_factors(32, 500000.0, scaling)
    assert factors[0] == 1
    assert factors[-1] == 8


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_role_whose_id_is_no_token_is_taken_as_none_and_said(tmp_path, token):
    def vocabulary(writer, size):
        add_byte_level(writer, size)
        writer.add_int32("tokenizer.ggml.padding_token_id", token)
        writer.add_int32("tokenizer.ggml.eot_token_id", token)

    write_gguf(tmp_path / "model.gguf", WIDE, vocabulary=vocabulary)
    said = []
    convert(
        tmp_path / "model.gguf", tmp_path / "made", progress=lambda step: said.append(step.message)
    )
    for key in ("padding_token_id", "eot_token_id"):
        assert any(f"{key} is {token}" in text and "as none" in text for text in filter(None, said))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["eos_token_id"] == 1
