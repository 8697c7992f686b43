"""LitGPT's checkpoints: both orders of the fused matrix, every family, and what is refused."""

import json

import numpy as np
import pytest
import yaml
from support.folders import tensors_of
from support.litgpt_files import (
    lit_llama_tensors,
    litgpt_tensors,
    model_config,
    with_optimizer,
    write_litgpt,
)
from support.tiny import CONFIGS, random_tensors, write_model, write_tokenizer
from support.torch_files import write_arrays

from edgellm.converters import convert
from edgellm.converters.formats import open_format
from edgellm.converters.litgpt.source import LitGPTSource
from edgellm.converters.tensors.recipe import ConversionSettings, make_recipe
from edgellm.errors import FormatError, UnsupportedModelError

SMALL = {"num_hidden_layers": 2, "tie_word_embeddings": False}
LLAMA = CONFIGS["llama-2"] | SMALL
FAMILIES = {
    "llama": LLAMA,
    "biases": CONFIGS["llama-biases"] | SMALL,
    "mistral": CONFIGS["mistral-window"] | SMALL,
    "qwen2": CONFIGS["qwen2"] | SMALL | {"sliding_window": None},
    "qwen3": CONFIGS["qwen3"] | SMALL,
}


def require_same(made, config):
    """Compare a converted folder's tensors with those of a tiny model, number by number."""
    found, expected = tensors_of(made), random_tensors(config)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(np.array(found[name]), values.astype(np.float32)), name


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_matrices_are_taken_apart(tmp_path, family, interleaved):
    config = FAMILIES[family]
    source = LitGPTSource(write_litgpt(tmp_path / "lit", config, interleaved=interleaved))
    expected = random_tensors(config)
    assert source.tensors.keys() == expected.keys()
    for name, values in expected.items():
        rows = source.tensors[name].rows
        middle = rows // 2 - 3  # in the middle of a head
        content = np.concatenate([source.rows(name, 0, middle), source.rows(name, middle, rows)])
        found = content.view(np.float32).reshape(values.shape)
        assert np.array_equal(found, values.astype(np.float32)), name
    make_recipe(source, ConversionSettings())
    for key in ("model_type", "num_key_value_heads", "max_position_embeddings"):
        assert source.config[key] == config[key], key
    assert source.config["rope_theta"] == config.get("rope_theta", 10000)
    assert source.config.get("sliding_window") == config.get("sliding_window")


@pytest.mark.parametrize(
    "form",
    [
        {"key": int},  # convert_to_litgpt numbers the storages
        {"wrap": with_optimizer},  # Fabric's, in the middle of a training
    ],
)
def test_what_lies_round_the_weights_is_left_alone(tmp_path, form):
    convert(write_litgpt(tmp_path / "lit", LLAMA, **form), tmp_path / "made", bits=16)
    require_same(tmp_path / "made", LLAMA)


def test_companions_and_token_ids_come_along(tmp_path):
    source = write_litgpt(tmp_path / "lit", LLAMA)
    write_tokenizer(source)
    (source / "config.json").write_text(json.dumps({"eos_token_id": [2, 3], "dtype": "float32"}))
    convert(source, tmp_path / "made")
    convert(source / "lit_model.pth", tmp_path / "same")
    said = json.loads((tmp_path / "made" / "config.json").read_text())
    assert said["eos_token_id"] == [2, 3]
    assert (tmp_path / "made" / "tokenizer.json").exists()
    for file in (tmp_path / "made").iterdir():
        assert file.read_bytes() == (tmp_path / "same" / file.name).read_bytes()


def test_a_head_that_is_the_embedding_again_is_tied(tmp_path):
    config = LLAMA | {"tie_word_embeddings": True}
    source = write_litgpt(tmp_path / "lit", config)
    tensors = litgpt_tensors(config, random_tensors(config))
    write_arrays(
        source / "lit_model.pth", tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}
    )
    opened = open_format(source)
    assert opened.config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in opened.tensors


def test_a_folder_that_has_the_original_weights_is_hugging_faces(tmp_path):
    source = write_model(tmp_path / "both", LLAMA, tokenizer=False)
    (source / "lit_model.pth").write_bytes(b"older")
    assert open_format(source).config["model_type"] == "llama"


def test_lit_gpts_older_config_is_read(tmp_path):
    source = write_litgpt(tmp_path / "lit", LLAMA, interleaved=True)
    (source / "model_config.yaml").unlink()
    old = {
        "org": "meta-llama", "name": "tiny", "block_size": 256, "vocab_size": 500,
        "padding_multiple": 64, "padded_vocab_size": 512, "n_layer": 2, "n_head": 4, "n_embd": 64,
        "rotary_percentage": 1.0, "parallel_residual": False, "bias": False, "n_query_groups": 2,
        "shared_attention_norm": False, "_norm_class": "RMSNorm", "norm_eps": 1e-05,
        "_mlp_class": "LLaMAMLP", "intermediate_size": 128, "condense_ratio": 4,
    }  # fmt: skip
    (source / "lit_config.json").write_text(json.dumps(old))
    convert(source, tmp_path / "made", bits=16)
    require_same(tmp_path / "made", LLAMA)
    said = json.loads((tmp_path / "made" / "config.json").read_text())
    assert said["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}


def test_llama_3s_positions_are_hugging_faces(tmp_path):
    source = write_litgpt(tmp_path / "lit", LLAMA)
    text = (source / "model_config.yaml").read_text()
    scaling = (
        "{factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_seq_len: 64}"
    )
    (source / "model_config.yaml").write_text(
        text.replace("rope_adjustments: null", f"rope_adjustments: {scaling}")
    )
    assert open_format(source).config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 64,
    }


def test_lit_llamas_bare_file_is_read(tmp_path):
    config = CONFIGS["llama-1"] | SMALL
    write_arrays(tmp_path / "lit-llama.pth", lit_llama_tensors(config, random_tensors(config)))
    with pytest.raises(FormatError, match="does not say how many heads"):
        convert(tmp_path / "lit-llama.pth", tmp_path / "made")
    (tmp_path / "model_config.yaml").write_text("n_head: 4\n")
    for source in (tmp_path, tmp_path / "lit-llama.pth"):
        convert(source, tmp_path / "made", bits=16, force=True)
        require_same(tmp_path / "made", config)
    said = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (said["rms_norm_eps"], said["max_position_embeddings"]) == (1e-5, 2048)


OTHERS = {
    "gemma2": """
        attention_scores_scalar: 32
        attention_logit_softcapping: 50.0
        final_logit_softcapping: 30.0
        sliding_window_size: 9
        sliding_window_indices: [1, 0]
        """,
    "gemma3_text": """
        norm_qk: true
        rope_local_base_freq: 10000
        rope_indices: [1, 0, 1]
        sliding_window_size: 9
        sliding_window_indices: [1, 0, 1]
        """,
    "olmo2": "norm_1: false\nnorm_2: false\nnorm_qk: true\nnorm_qk_type: olmo2",
}
POST_NORMS = "post_attention_norm: true\npost_mlp_norm: true\n"
GEMMA = "mlp_class_name: GemmaMLP\ngelu_approximate: tanh\nscale_embeddings: true\nname: Gemma\n"


def write_other(folder, family):
    """Write a model of LitGPT's whose layers have norms behind their two halves."""
    source = write_litgpt(folder, LLAMA)
    said = yaml.safe_load(model_config(LLAMA)) | yaml.safe_load(POST_NORMS)
    if family.startswith("gemma"):
        said |= yaml.safe_load(GEMMA)
    said |= yaml.safe_load(OTHERS[family])
    (source / "model_config.yaml").write_text(yaml.safe_dump(said))
    tensors = litgpt_tensors(LLAMA, random_tensors(LLAMA))
    for layer in range(2):
        inside = f"transformer.h.{layer}."
        for name in ("post_attention_norm", "post_mlp_norm"):
            tensors[f"{inside}{name}.weight"] = np.ones(64, np.float32)
        if family == "olmo2":
            del tensors[f"{inside}norm_1.weight"], tensors[f"{inside}norm_2.weight"]
        sizes = {"gemma3_text": (16, 16), "olmo2": (64, 32)}.get(family, ())
        for letter, size in zip("qk", sizes, strict=False):
            tensors[f"{inside}attn.norm_{letter}.weight"] = np.ones(size, np.float32)
    write_arrays(source / "lit_model.pth", tensors)
    return source


@pytest.mark.parametrize("family", OTHERS)
def test_layers_with_norms_behind_their_halves_are_gemmas_and_olmos(tmp_path, family):
    source = LitGPTSource(write_other(tmp_path / "lit", family))
    make_recipe(source, ConversionSettings())
    assert source.config["model_type"] == family
    prefix = "model.layers.1."
    assert f"{prefix}post_feedforward_layernorm.weight" in source.tensors
    if family != "olmo2":
        assert source.config["layer_types"] == ["sliding_attention", "full_attention"]
        second = random_tensors(LLAMA)[f"{prefix}post_attention_layernorm.weight"]
        found = source.rows(f"{prefix}pre_feedforward_layernorm.weight", 0, 64).view(np.float32)
        assert np.array_equal(found, second.astype(np.float32))


CHANGED = {
    "Gemma": ("mlp_class_name: LLaMAMLP", "mlp_class_name: GemmaMLP", "GemmaMLP"),
    "an older default": ("parallel_residual: false\n", "", "parallel_residual: True"),
    "part of a head": (
        "attn_bias: false\nbias: false\n",
        "attn_bias: true\nbias: false\nrotary_percentage: 0.5\n",
        "biases and heads that are rotated in part",
    ),
    "experts": ("n_expert: 0", "n_expert: 8", "n_expert: 8"),
    "OLMo 2": ("norm_qk: false", "norm_qk: true\nnorm_qk_type: olmo2", "norm_1"),
    "yarn": ("rope_adjustments: null", "rope_adjustments: {beta_fast: 32, factor: 4}", "yarn"),
    "tomorrow's": ("block_size: 256", "mixture_of_depths: 0.5", "mixture_of_depths"),
    "some windows": (
        "sliding_window_size: null",
        "sliding_window_size: 8\nsliding_window_indices: [1, 0, 1, 0]",
        "window",
    ),
    "biases and a window": (
        "attn_bias: false\nbias: false",
        "attn_bias: true\nsliding_window_size: 8\nbias: false",
        "biases and a window",
    ),
}


@pytest.mark.parametrize("change", CHANGED)
def test_models_that_are_no_llama_are_refused_by_name(tmp_path, change):
    source = write_litgpt(tmp_path / "lit", LLAMA)
    old, new, said = CHANGED[change]
    text = (source / "model_config.yaml").read_text().replace("sliding_window_size: null\n", "", 1)
    if old == "sliding_window_size: null":
        text, old = f"{text}{new}\n", "\n"
        new = old
    assert old in text
    if "rotary_percentage" in new:
        text = text.replace("rotary_percentage: 1.0\n", "")
    (source / "model_config.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UnsupportedModelError, match=said) as refusal:
        LitGPTSource(source)
    assert refusal.value.hint


YAML = {
    "aliases": "a: &x [1]\nb: *x\n",
    "objects": "a: !!python/name:os.system\n",
    "depth": f"a: {'[' * 40}{']' * 40}\n",
    "a list": "- 1\n",
    "an impossible day": "a: 2024-13-45\n",
    "half a line": "a: [1\n",
}


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_yaml_that_is_more_than_values_is_refused(tmp_path, text):
    source = write_litgpt(tmp_path / "lit", LLAMA)
    (source / "model_config.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"model_config\.yaml"):
        LitGPTSource(source)


FILES = {
    "quantized": {"transformer.h.0.attn.qkv.weight.absmax": "quantized"},
    "an adapter": {"transformer.h.0.attn.qkv.lora_A": "part of a LoRA"},
    "another model": {"transformer.h.0.mlp.fc.weight": "no model"},
    "an export": {"model.layers.0.mlp.up_proj.weight": "Hugging Face's names"},
    "both orders": {"transformer.h.0.attn.attn.weight": "twice"},
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_refused_by_name(tmp_path, kind):
    source = write_litgpt(tmp_path / "lit", LLAMA)
    tensors = litgpt_tensors(LLAMA, random_tensors(LLAMA))
    [(name, said)] = FILES[kind].items()
    more = tensors["transformer.h.0.attn.qkv.weight"]
    write_arrays(source / "lit_model.pth", tensors | {name: more})
    with pytest.raises((FormatError, UnsupportedModelError), match=said):
        LitGPTSource(source)


def test_shards_of_a_training_and_lone_adapters_are_refused(tmp_path):
    (tmp_path / "lit_model.pth").mkdir()
    with pytest.raises(UnsupportedModelError, match="shards of a training"):
        LitGPTSource(tmp_path)
    (tmp_path / "lit_model.pth").rmdir()
    (tmp_path / "lit_model.pth.lora").touch()
    with pytest.raises(UnsupportedModelError, match="LoRA alone"):
        LitGPTSource(tmp_path)


def test_a_config_that_does_not_fit_is_refused(tmp_path):
    source = write_litgpt(tmp_path / "lit", LLAMA)
    (source / "model_config.yaml").write_text(model_config(LLAMA | {"num_key_value_heads": 4}))
    with pytest.raises(FormatError, match="192 rows"):
        LitGPTSource(source)


def test_layers_past_the_last_one_are_refused_as_in_litgpt(tmp_path):
    source = write_litgpt(tmp_path / "source", LLAMA)
    (source / "model_config.yaml").write_text(model_config(LLAMA | {"num_hidden_layers": 1}))
    with pytest.raises(FormatError, match="speaks of 1"):
        LitGPTSource(source)
