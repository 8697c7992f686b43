"""Mistral's own folders: names, order of rows, params.json, what is left out and refused."""

import json

import numpy as np
import pytest
from support.folders import tensors_of
from support.meta_files import params_of
from support.mistral_files import CONFIG, tekken, write_mistral
from support.paged import open_model
from support.tiny import random_tensors, write_model

from edgellm.checkpoint.dialects.rotary import read_rotary
from edgellm.converters import convert
from edgellm.converters.formats import open_format
from edgellm.converters.meta.model_config import shape_of
from edgellm.converters.mistral.model_config import mistral_config, refuse_unsupported
from edgellm.errors import EdgeLLMError, FormatError, UnsupportedModelError

YARN = {"original_max_position_embeddings": 64, "factor": 4.0, "beta": 32.0, "alpha": 1.0}


def config_of(**params):
    """The config of a params.json, and what is said of it."""
    params = params_of(CONFIG, head_dim=32, hidden_dim=128) | params
    refuse_unsupported(params)
    return mistral_config(params, shape_of(params, {}, 1), vocabulary=320, tied=False)


@pytest.mark.parametrize("files", [1, 2])
def test_it_becomes_the_model_in_hugging_faces_form(tmp_path, files):
    source = write_mistral(tmp_path / "own", files=files)
    convert(source, tmp_path / "made", bits=16)
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    made = tensors_of(tmp_path / "made")
    expected = random_tensors(CONFIG | {"vocab_size": config["vocab_size"]})
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(np.array(made[name]), values.astype(np.float32)), name
    said = {key: config[key] for key in ("model_type", "sliding_window", "rope_theta", "head_dim")}
    assert said == {
        "model_type": "mistral",
        "sliding_window": None,
        "rope_theta": 1e6,
        "head_dim": 32,
    }
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)


@pytest.mark.torch
def test_logits_are_those_of_transformers(tmp_path):
    from make_golden import open_reference, reference_logits

    source = write_mistral(
        tmp_path / "own", params={"yarn": YARN | {"apply_scale": False}, "max_seq_len": 256}
    )
    convert(source, tmp_path / "made", bits=16)
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    rotary = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    plain = write_model(
        tmp_path / "plain",
        CONFIG | {"vocab_size": config["vocab_size"], "rope_parameters": rotary},
    )
    prompt = np.random.RandomState(5).randint(3, 300, 100).tolist()
    expected = reference_logits(open_reference(plain), prompt)
    made = reference_logits(open_reference(tmp_path / "made"), prompt)
    assert np.abs(made - expected).max() < 1e-5
    with open_model(tmp_path / "made", context=128, activations="float", kv_bits=32) as llm:
        assert np.abs(np.array(llm.logits(prompt)) - expected).max() < 1e-4


def test_parts_that_see_or_hear_are_left_out(tmp_path):
    patch = {"patch_merger.merging_layer.weight": np.ones((4, 4), np.float32)}
    source = open_format(
        write_mistral(
            tmp_path / "sees",
            params={"vision_encoder": {"hidden_size": 4}},
            extra=patch | {"vision_encoder.ln_pre.weight": np.ones(4, np.float32)},
        )
    )
    assert not any("vision" in name or "patch" in name for name in source.tensors)
    assert "2 tensors that no text goes through left out" in source.notes


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"sliding_window": 4096, "rope_theta": None}, {"sliding_window": 4096, "rope_theta": 1e4}),
        ({"sliding_window": [9, 9]}, {"sliding_window": 9}),
        (
            {"_sliding_window": [None, 9]},
            {"model_type": "ministral", "layer_types": ["full_attention", "sliding_attention"] * 2},
        ),
        ({"sliding_window": None, "_sliding_window": [None]}, {"sliding_window": None}),
        ({"_sliding_window": 12, "rope_theta": 1e8}, {"sliding_window": 12, "rope_theta": 1e8}),
        ({"rope_theta": None, "norm_eps": None}, {"rope_theta": 1e6, "rms_norm_eps": 1e-5}),
        ({"max_seq_len": 100}, {"max_position_embeddings": 100}),
        ({}, {"max_position_embeddings": 32768}),
        ({"moe": None, "quantization": {}, "n_kv_heads": None}, {"num_key_value_heads": 4}),
    ],
)
def test_params_are_read(params, expected):
    config, notes = config_of(**params)
    assert {key: config[key] for key in expected} == expected
    assert bool(notes) == ("max_seq_len" not in params)


def test_yarn_is_scaled_unless_it_says_no():
    for apply, factor in ((None, 1.138629), (True, 1.138629), (False, 1.0)):
        config, _ = config_of(yarn=YARN | {"apply_scale": apply})
        _, scaling = read_rotary(config, 256, 32)
        assert scaling.kind == "yarn"
        assert scaling.attention_factor == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(
    ("params", "error", "said"),
    [
        ({"moe": {"num_experts": 8}}, UnsupportedModelError, "moe"),
        ({"quantization": {"qformat_weight": "fp8_e4m3"}}, UnsupportedModelError, "quantization"),
        ({"llama_4_scaling": {"beta": 0.1}}, UnsupportedModelError, "llama_4_scaling"),
        ({"model_type": "mamba"}, UnsupportedModelError, "mamba"),
        ({"sliding_window": [None, 9, 8, 9]}, UnsupportedModelError, "several lengths"),
        ({"sliding_window": []}, FormatError, "sliding_window"),
        ({"sliding_window": 0}, FormatError, "sliding_window"),
        ({"sliding_window": "9"}, FormatError, "sliding_window"),
        ({"sliding_window": [[9]]}, FormatError, "sliding_window"),
        ({"yarn": [1]}, FormatError, "yarn"),
        ({"vocab_size": 7}, FormatError, "vocab_size"),
    ],
)
def test_what_cannot_be_run_is_refused(params, error, said):
    with pytest.raises(error, match=said):
        config_of(**params)


def test_a_tensor_that_no_llama_has_is_refused(tmp_path):
    extra = {"layers.0.attention.wq.qscale_weight": np.ones((), np.float32)}
    with pytest.raises(EdgeLLMError, match="qscale_weight"):
        open_format(write_mistral(tmp_path / "own", extra=extra))


def test_hugging_faces_form_beside_it_is_taken(tmp_path):
    folder = write_mistral(tmp_path / "own", tokenizer=tekken())
    assert type(open_format(folder)._base).__name__ == "MistralSource"
    write_model(tmp_path / "plain", CONFIG)
    for file in (tmp_path / "plain").iterdir():
        file.rename(folder / file.name)
    assert type(open_format(folder)._base).__name__ == "HuggingFaceSource"


def test_layers_past_the_last_one_are_refused(tmp_path):
    source = write_mistral(tmp_path / "source", params={"n_layers": 1})
    with pytest.raises(FormatError, match="speaks of 1"):
        open_format(source)
