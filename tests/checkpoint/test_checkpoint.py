"""A folder is checked against its config before a weight is read."""

import json
import shutil

import mlx.core as mx
import pytest
from support import tiny

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.errors import (
    EdgeLLMError,
    FormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)


def changed(folder, destination, change, *, config=None):
    """A copy of a folder, its tensors changed in place by a function."""
    shutil.copytree(folder, destination)
    tensors = mx.load(str(destination / "model.safetensors"))
    change(tensors)
    mx.save_safetensors(str(destination / "model.safetensors"), tensors)
    if config:
        raw = json.loads((destination / "config.json").read_text(encoding="utf-8"))
        (destination / "config.json").write_text(json.dumps(raw | config), encoding="utf-8")
    return destination


@pytest.fixture
def folder(tiny_folder):
    return tiny_folder("llama-2")


def test_all_bytes_are_accounted_for(folder):
    checkpoint = read_checkpoint(folder)
    assert checkpoint.nbytes == sum(
        tensor.nbytes for tensor in mx.load(str(folder / "model.safetensors")).values()
    )
    assert len(checkpoint.layers) == tiny.LAYERS
    assert len({layer.layout for layer in checkpoint.layers}) == 1
    assert checkpoint.dtype == "F32"
    assert checkpoint.lm_head is not None
    assert set(checkpoint.layers[0].quantizations.values()) == {None}


def test_a_layer_of_our_own_folders_is_one_read(folder, tmp_path):
    for bits in (4, 16):
        convert(folder, tmp_path / str(bits), bits=bits, dtype="bfloat16")
        checkpoint = read_checkpoint(tmp_path / str(bits))
        for part in (*checkpoint.layers, checkpoint.embed_tokens, checkpoint.norm):
            assert len(part.extents) == 1
        assert all(layer.extents[0].offset % 16384 == 0 for layer in checkpoint.layers)
        assert len({layer.layout for layer in checkpoint.layers}) == 1
        expected = {Quantization(4, 64)} if bits == 4 else {None}
        assert set(checkpoint.layers[2].quantizations.values()) == expected


def test_end_tokens_of_both_configs_count(tiny_folder):
    folder = tiny_folder("llama-2", generation_config={"eos_token_id": [5, 6]})
    assert read_checkpoint(folder).eos_token_ids == {tiny.END, 5, 6}


@pytest.mark.parametrize("place", ["config", "generation_config"])
@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_end_token_that_is_none_is_taken_as_none_and_said(tiny_folder, place, token):
    folder = tiny_folder("llama-2", **{place: {"eos_token_id": [token, 5]}})
    with pytest.warns(UserWarning, match=f"eos_token_id is {token}, .* taken as none"):
        checkpoint = read_checkpoint(folder)
    assert 5 in checkpoint.eos_token_ids
    assert token not in checkpoint.eos_token_ids


def test_a_head_that_is_tied(tiny_folder, tmp_path):
    tied = read_checkpoint(tiny_folder("llama-3.2"))
    assert (tied.config.tie_word_embeddings, tied.lm_head) == (True, None)
    # mlx-lm's default is tied, so a folder may say nothing and have no head
    silent = changed(
        tiny_folder("llama-2"), tmp_path / "silent", lambda tensors: tensors.pop("lm_head.weight")
    )
    raw = json.loads((silent / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(FormatError, match=r"lm_head\.weight' is missing"):
        read_checkpoint(silent)
    del raw["tie_word_embeddings"]
    (silent / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert read_checkpoint(silent).lm_head is None


def test_a_head_of_its_own_is_the_head_whatever_the_config_says(tiny_folder, tmp_path):
    """transformers 5 does not tie what is stored apart; mlx-lm drops such a head."""
    folder = tiny_folder("llama-3")
    said = changed(folder, tmp_path / "said", dict, config={"tie_word_embeddings": True})
    checkpoint = read_checkpoint(said)
    assert checkpoint.lm_head is not None
    assert not checkpoint.config.tie_word_embeddings

    def repeat(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 1

    assert read_checkpoint(changed(said, tmp_path / "same", repeat)).lm_head is None


PREFIXES = {
    "": "lm_head.",
    "language_model.model.": "language_model.lm_head.",
    "model.language_model.": "lm_head.",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_weights_under_another_prefix_are_the_same_model(prefix, folder, tmp_path):
    def rename(tensors):
        for name in list(tensors):
            ours = PREFIXES[prefix] + name.removeprefix("lm_head.")
            if name.startswith("model."):
                ours = prefix + name.removeprefix("model.")
            tensors[ours] = tensors.pop(name)

    renamed = read_checkpoint(changed(folder, tmp_path / "renamed", rename))
    plain = read_checkpoint(folder)
    assert renamed.nbytes == plain.nbytes
    assert [layer.layout for layer in renamed.layers] == [layer.layout for layer in plain.layers]


def test_a_pointer_of_git_lfs_is_said_to_be_one(folder, tmp_path):
    copy = changed(folder, tmp_path / "pointer", dict)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (copy / "model.safetensors").write_text(pointer)
    with pytest.raises(FormatError, match="pointer of git-lfs"):
        read_checkpoint(copy)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_text(pointer)
    with pytest.raises(FormatError, match="pointer of git-lfs"):
        convert(copy, tmp_path / "made")
    (tmp_path / "model.gguf").write_text(pointer)
    with pytest.raises(FormatError, match="pointer of git-lfs"):
        convert(tmp_path / "model.gguf", tmp_path / "made")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "LICENSE", "merges.txt"]
)
def test_a_pointer_in_the_place_of_a_small_file_is_said_too(folder, tmp_path, name):
    """A chat template that is one would be said to the model, without a word."""
    copy = changed(folder, tmp_path / "pointer", dict)
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(EdgeLLMError, match=f"{name} is a pointer of git-lfs"):
        convert(copy, tmp_path / "made")


def test_tensors_that_no_layer_asks_for_are_left_alone(folder, tmp_path):
    def add(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.zeros((8,))

    more = changed(folder, tmp_path / "more", add)
    assert read_checkpoint(more).nbytes == read_checkpoint(folder).nbytes


def test_layers_that_the_config_does_not_count_are_left_out_and_said(folder, tmp_path):
    def add(tensors):
        tensors["model.layers.9.mlp.up_proj.weight"] = mx.zeros((8,))

    more = changed(folder, tmp_path / "more", add)
    with pytest.warns(UserWarning, match="the files have 1 layer that the config does not count"):
        checkpoint = read_checkpoint(more)
    assert checkpoint.nbytes == read_checkpoint(folder).nbytes


LAYER = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(LAYER), "q_proj.weight' is missing"),
        (
            lambda tensors: tensors.pop("model.layers.3.input_layernorm.weight"),
            "input_layernorm.weight is missing",
        ),
        (lambda tensors: tensors.pop("model.norm.weight"), "norm.weight is missing"),
        (lambda tensors: tensors.update({LAYER: tensors[LAYER][:-1]}), "needs"),
        (lambda tensors: tensors.update({LAYER: tensors[LAYER].T[:, :32]}), "needs"),
        (lambda tensors: tensors.update({LAYER: tensors[LAYER].astype(mx.int32)}), "stored as I32"),
        (
            lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:3]}),
            "the config needs",
        ),
        (
            lambda tensors: tensors.update({LAYER.replace("weight", "scales"): mx.zeros((64, 2))}),
            "does not fit",
        ),
    ],
)
def test_a_folder_that_does_not_fit_its_config(change, said, folder, tmp_path):
    with pytest.raises(FormatError, match=said):
        read_checkpoint(changed(folder, tmp_path / "changed", change))


def test_a_config_that_promises_biases_which_are_not_there(folder, tmp_path):
    with pytest.raises(FormatError, match=r"bias is missing"):
        read_checkpoint(changed(folder, tmp_path / "biases", dict, config={"attention_bias": True}))


def test_other_kinds_of_folder(tmp_path, folder):
    with pytest.raises(ModelNotFoundError):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(FormatError, match=r"config\.json"):
        read_checkpoint(tmp_path)
    with pytest.raises(UnsupportedModelError, match="gpt2"):
        read_checkpoint(changed(folder, tmp_path / "gpt2", dict, config={"model_type": "gpt2"}))
