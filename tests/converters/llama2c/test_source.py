"""llama2.c's model files of every version, and the tokenizer beside them."""

import json
import struct

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.folders import tensors_of
from support.llama2c_files import write_llama2c, write_tokenizer_bin
from support.tiny import CONFIGS, write_model
from support.tiny_tokenizers import piece_model, write_pieces

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.converters.formats import open_format
from edgellm.errors import ConfigError, EdgeLLMError, FormatError, TokenizerError
from edgellm.tokenizer import Tokenizer

LLAMA = CONFIGS["llama-2"] | {"vocab_size": 448, "tie_word_embeddings": True}
UNTIED = LLAMA | {"tie_word_embeddings": False}
PIECES = {"user_defined_symbols": ""}


def write_all(folder, config=LLAMA, **settings):
    folder.mkdir(exist_ok=True)
    write_tokenizer_bin(folder / "tokenizer.bin", piece_model(**PIECES))
    return folder / "model.bin", write_llama2c(folder / "model.bin", config, **settings)


@pytest.mark.parametrize("config", [LLAMA, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("version", [0, 1])
def test_floats_are_kept_and_brought_into_order(tmp_path, version, config):
    file, expected = write_all(tmp_path / "source", config, version=version)
    assert convert(file, tmp_path / "made", bits=16).dtype == "float32"
    made = tensors_of(tmp_path / "made")
    assert made.keys() == expected.keys()
    assert all(np.array_equal(np.array(made[name]), expected[name]) for name in expected)
    said = json.loads((tmp_path / "made" / "config.json").read_text())
    assert said["tie_word_embeddings"] is config["tie_word_embeddings"]
    assert said["num_key_value_heads"] == 2


@pytest.mark.parametrize("group", [32, 64])
def test_int8_groups_that_mlx_has_are_kept(tmp_path, group):
    file, expected = write_all(tmp_path / "source", UNTIED, version=2, group=group)
    report = convert(file, tmp_path / "made")
    assert report.quantization == Quantization(8, group)
    assert report.exceptions == {}
    assert report.errors is None
    made = tensors_of(tmp_path / "made")
    for name, values in expected.items():
        if values.ndim == 1:
            assert np.array_equal(np.array(made[name]), values)
            continue
        codes, scales, biases = (
            np.array(made[name.replace("weight", part)]) for part in ("weight", "scales", "biases")
        )
        codes = codes.view(np.uint8).astype(np.int64).reshape(values.shape)
        wide = np.repeat(scales.astype(np.float64), group, 1)
        restored = codes * wide + np.repeat(biases.astype(np.float64), group, 1)
        assert np.array_equal(restored.astype(np.float32), values), name


@pytest.mark.parametrize("group", [16, 128, 256])
def test_other_groups_are_quantized_again_and_it_is_said(tmp_path, group):
    file, expected = write_all(tmp_path / "source", LLAMA, version=2, group=group)
    said = []
    report = convert(file, tmp_path / "made", progress=lambda step: said.append(step.message))
    assert any(message and "quantized again" in message for message in said)
    assert report.quantization == Quantization(8, 64)
    assert max(report.errors.values()) < 0.01
    convert(file, tmp_path / "plain", bits=16)
    plain = tensors_of(tmp_path / "plain")
    assert all(np.array_equal(np.array(plain[name]), expected[name]) for name in expected)


def test_it_is_the_same_model_as_in_hugging_faces_form(tmp_path):
    file, _ = write_all(tmp_path / "source", version=1)
    convert(file, tmp_path / "made", dtype="float16")
    convert(write_model(tmp_path / "plain", LLAMA), tmp_path / "expected", dtype="float16")
    made, expected = tensors_of(tmp_path / "made"), tensors_of(tmp_path / "expected")
    assert made.keys() == expected.keys()
    assert all(bool(mx.array_equal(made[name], expected[name])) for name in made)


def test_the_tokenizer_encodes_as_the_one_it_was_made_from(tmp_path):
    file, _ = write_all(tmp_path / "source", version=0)
    convert(file, tmp_path / "made")
    ours = Tokenizer.from_folder(tmp_path / "made", vocab_size=LLAMA["vocab_size"])
    theirs = Tokenizer.from_folder(write_pieces(tmp_path / "pieces", **PIECES))
    for text in (
        "Once upon a time",
        "  two  spaces",
        "Der kleine Hund: 12 größer!\n日本",
        "",
        "<s> x </s>",
    ):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.eos_token_ids == {2}


def test_a_tokenizer_may_be_named_and_must_be_there(tmp_path):
    file, _ = write_all(tmp_path / "source", version=1)
    named = (file.parent / "tokenizer.bin").rename(tmp_path / "other.bin")
    with pytest.raises(TokenizerError, match=r"no tokenizer\.bin") as caught:
        convert(file, tmp_path / "made")
    assert "--tokenizer" in caught.value.hint
    assert not (tmp_path / "made.partial").exists()
    folder = write_pieces(tmp_path / "pieces", **PIECES)
    for given_tokenizer in (named, folder, folder / "tokenizer.model"):
        convert(file, tmp_path / "made", tokenizer=given_tokenizer, force=True)
        assert Tokenizer.from_folder(tmp_path / "made").encode("Once upon")[0] == 1
    for nothing in (tmp_path / "absent", file, tmp_path):
        with pytest.raises((ConfigError, FormatError)):
            convert(file, tmp_path / "other", tokenizer=nothing)


def header(**numbers):
    config = {
        "dim": 64,
        "hidden": 128,
        "layers": 4,
        "heads": 4,
        "kv": 2,
        "vocab": 448,
        "seq": 256,
    } | numbers
    return struct.pack("<7i", *config.values())


FAULTS = {
    "cut short": lambda data: data[:-1],
    "longer": lambda data: data + b"\0\0\0\0",
    "only a mark": lambda data: data[:4],
    "no header": lambda data: data[:100],
    "another version": lambda data: data[:4] + struct.pack("<i", 7) + data[8:],
    "negative layers": lambda data: data[:8] + header(layers=-4) + data[36:],
    "huge": lambda data: data[:8] + header(dim=1 << 30) + data[36:],
    "no heads": lambda data: data[:8] + header(heads=0) + data[36:],
    "odd heads": lambda data: data[:8] + header(heads=3) + data[36:],
    "more words": lambda data: data[:8] + header(vocab=449) + data[36:],
    "neither tied nor not": lambda data: data[:36] + b"\7" + data[37:],
    "a group of nothing": lambda data: (
        data[:4] + struct.pack("<i", 2) + data[8:37] + struct.pack("<i", 0) + data[41:]
    ),
    "a negative group": lambda data: (
        data[:4] + struct.pack("<i", 2) + data[8:37] + struct.pack("<i", -64) + data[41:]
    ),
    "a NaN": lambda data: data[:-4] + struct.pack("<f", float("nan")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_are_refused(tmp_path, fault):
    file, _ = write_all(tmp_path / "source", version=1)
    file.write_bytes(FAULTS[fault](file.read_bytes()))
    with pytest.raises(FormatError):
        convert(file, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


TOKENIZER_FAULTS = {
    "cut short": lambda data: data[:-1],
    "in the middle of a length": lambda data: data[:-6],
    "a negative length": lambda data: data[:8] + struct.pack("<i", -1) + data[12:],
    "a huge length": lambda data: data[:8] + struct.pack("<i", 1 << 30) + data[12:],
    "no score": lambda data: data[:4] + struct.pack("<f", float("nan")) + data[8:],
    "nothing": lambda data: data[:4],
    "too many": lambda data: data + data[4:],
    "a token twice": lambda data: data + data[-9:] * 2,
    "no text": lambda data: data[:-1] + b"\xff",
}


@pytest.mark.parametrize("fault", TOKENIZER_FAULTS)
def test_damaged_tokenizers_are_refused(tmp_path, fault):
    file, _ = write_all(tmp_path / "source", version=1)
    tokenizer = file.with_name("tokenizer.bin")
    tokenizer.write_bytes(TOKENIZER_FAULTS[fault](tokenizer.read_bytes()))
    with pytest.raises(FormatError):
        convert(file, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama2c")
    files = {}
    for version in (0, 1, 2):
        file, _ = write_all(
            folder / str(version), LLAMA | {"num_hidden_layers": 1}, version=version
        )
        files[version] = file, file.read_bytes()
    return files


@settings(max_examples=60)
@given(st.data())
def test_any_damage_is_an_error_of_ours_or_a_model(whole, data):
    file, content = whole[data.draw(st.integers(0, 2))]
    damaged = bytearray(content)
    at = data.draw(st.integers(0, 300))
    damaged[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), at]))])
    try:
        opened = open_format(file)
        for name, tensor in opened.tensors.items() if opened else ():
            assert opened.rows(name, 0, tensor.rows).nbytes == tensor.nbytes
    except EdgeLLMError:
        pass
    finally:
        file.write_bytes(content)
