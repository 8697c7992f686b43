"""Tensors beside a model's own, and prefixes before all names: as transformers, or by name."""

import json
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from support.folders import LLAMA, change, tensors_of
from support.tiny import random_tensors, write_model
from support.torch_files import write_arrays

from edgellm.converters import convert
from edgellm.converters.formats import open_format
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.errors import FormatError

ONE_LAYER = LLAMA | {"num_hidden_layers": 1}


def recipe_with(tmp_path, **tensors):
    """The recipe of a model that also holds these tensors, ``__`` for a dot in their names."""
    folder = write_model(tmp_path / "model", ONE_LAYER, tokenizer=False)
    more = {name.replace("__", "."): values for name, values in tensors.items()}
    return make_recipe(open_format(change(folder, lambda all_: all_.update(more))), SETTINGS)


SETTINGS = ConversionSettings(bits=16)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize(
    "tensors",
    [
        {"model__layers__0__self_attn__masked_bias": mx.array(-1e9)},
        {"model__layers__0__self_attn__bias": mx.ones((1, 1, 8, 8), dtype=mx.uint8)},
        {"model__embed_tokens__position_ids": mx.arange(8)},
        {"model__layers__0__mlp__up_proj__calls": mx.array(3)},
        {"temperature": mx.array(1.5)},
        {"vision_tower__weight": mx.ones((3, 3)), "multi_modal_projector__bias": mx.ones(3)},
        {"model__layers__1__mlp__up_proj__weight": mx.ones((128, 64))},
        {"score__weight": mx.ones((2, 64))},
    ],
)
def test_what_the_model_does_not_have_is_left_out_as_in_transformers(tmp_path, tensors):
    recipe = recipe_with(tmp_path, **tensors)
    assert set(recipe.left_out) == {name.replace("__", ".") for name in tensors}
    written = {tensor.name for file in recipe.files for tensor in file.tensors}
    assert written.isdisjoint(recipe.left_out)


@pytest.mark.parametrize(
    "name",
    [
        "model__layers__0__self_attn__q_proj__bias",
        "model__layers__0__self_attn__q_proj__lora_A__weight",
        "model__norm__bias",
    ],
)
def test_what_changes_its_own_matrices_and_vectors_is_refused(tmp_path, name):
    with pytest.raises(FormatError, match="does not account for"):
        recipe_with(tmp_path, **{name: mx.ones(64)})


def test_what_is_left_out_is_said(tmp_path):
    folder = write_model(tmp_path / "model", ONE_LAYER)
    change(folder, lambda tensors: tensors.update(temperature=mx.array(1.5)))
    said = []
    convert(folder, tmp_path / "made", progress=lambda step: said.append(step.message))
    assert any(text and "no such tensors: 'temperature'" in text for text in said)


@pytest.mark.parametrize(
    ("prefix", "headless"),
    [
        *product(("_orig_mod.", "module.", "base_model.model."), (False, True)),
        ("model.", False),
    ],
)
def test_prefixes_of_what_saved_a_model_are_taken_off(tmp_path, prefix, headless):
    base = write_model(tmp_path / "base", ONE_LAYER, tokenizer=False)
    saved = write_model(tmp_path / "saved", ONE_LAYER, tokenizer=False)

    def rename(tensors):
        named = dict(tensors)
        tensors.clear()
        for name, values in named.items():
            inner = name
            if headless and name != "lm_head.weight":
                inner = name.removeprefix("model.")
            tensors[prefix + inner] = values

    change(saved, rename)
    plain, renamed = open_format(base), open_format(saved)
    assert renamed.tensors == plain.tensors
    name = "model.layers.0.self_attn.q_proj.weight"
    assert np.array_equal(renamed.rows(name, 3, 5), plain.rows(name, 3, 5))


def test_safetensors_go_before_pytorchs_file_and_an_index_needs_no_metadata(tmp_path):
    base = write_model(tmp_path / "base", ONE_LAYER, shards=2, tokenizer=False)
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"]}))
    other = random_tensors(ONE_LAYER, seed=5)
    write_arrays(
        base / "pytorch_model.bin",
        {name: values.astype(np.float32) for name, values in other.items()},
    )
    convert(base, tmp_path / "made", bits=16)
    made = tensors_of(tmp_path / "made")
    for name, values in random_tensors(ONE_LAYER).items():
        assert np.array_equal(np.array(made[name]), values.astype(np.float32)), name


def test_whole_layers_that_the_config_does_not_count_are_told(tmp_path):
    recipe = recipe_with(tmp_path, model__layers__1__mlp__up_proj__weight=mx.ones((128, 64)))
    assert "1 whole layer left out: num_hidden_layers" in recipe.notes[-1]


def test_of_a_tied_pair_the_head_alone_may_be_stored(tmp_path):
    """transformers 5.24 makes the embedding of it."""
    config = ONE_LAYER | {"tie_word_embeddings": True}
    folder = write_model(tmp_path / "model", config, tokenizer=False)
    convert(folder, tmp_path / "plain", bits=16)
    change(folder, lambda all_: all_.update({HEAD: all_.pop(EMBEDDING)}))
    convert(folder, tmp_path / "made", bits=16)
    assert np.array_equal(tensors_of(tmp_path / "made")[EMBEDDING], tensors_of(folder)[HEAD])
    assert tensors_of(tmp_path / "made").keys() == tensors_of(tmp_path / "plain").keys()


def test_names_that_nobody_knows_are_shown_beside_the_missing_one(tmp_path):
    folder = write_model(tmp_path / "model", ONE_LAYER, tokenizer=False)

    def rename(tensors):
        for name in list(tensors):
            tensors[f"student.{name}"] = tensors.pop(name)

    with pytest.raises(FormatError, match=r"there is 'student\.model\.layers\.0"):
        make_recipe(open_format(change(folder, rename)), SETTINGS)
