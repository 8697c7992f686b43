"""Rotary scaling in GGUF's metadata, and in its tensor of factors."""

import math
from pathlib import Path

import gguf
import numpy as np
import pytest
from support.gguf_files import write_gguf
from support.tiny import CONFIGS, LLAMA3_SCALING

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.dialects.rotary import RopeScaling
from edgellm.converters import convert, export
from edgellm.converters.gguf.metadata import Metadata, ModelNumbers
from edgellm.converters.gguf.rope_scaling import ROPE_FACTORS, read_rope_scaling, rope_factors
from edgellm.errors import UnsupportedModelError


def numbers_of(metadata):
    return ModelNumbers(Metadata(Path("x.gguf"), metadata), "llama")


NO_METADATA = numbers_of({})


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
    said = read_rope_scaling(NO_METADATA, config, {ROPE_FACTORS: factors})
    assert said["rope_type"] == scaling.kind
    found = RopeScaling(**{"kind": said.pop("rope_type"), **said})
    np.testing.assert_allclose(rope_factors(128, 500000.0, found), factors, rtol=1e-4)


def test_rotary_factors_of_another_kind_are_refused():
    config = {"model_type": "llama", "head_dim": 128, "rope_theta": 500000.0}
    with pytest.raises(UnsupportedModelError, match="rotary"):
        read_rope_scaling(
            NO_METADATA, config, {ROPE_FACTORS: np.linspace(1, 9, 64, dtype=np.float32)}
        )
    with pytest.raises(UnsupportedModelError, match="longrope"):
        read_rope_scaling(numbers_of({"llama.rope.scaling.type": "longrope"}), config, {})


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
    said = read_rope_scaling(numbers_of(metadata), config, {})
    assert said == (factor and {"rope_type": "linear", "factor": factor})
    older = {"llama.rope.scale_linear": 2.0, **metadata}
    said = read_rope_scaling(numbers_of(older), config, {})
    assert (said is None) == (keys.get("type") == "none" or keys.get("factor") in (0.0, 1.0))


def test_llama_3_s_scaling_is_what_the_tensor_says():
    scaling = RopeScaling(
        **{"kind": LLAMA3_SCALING["rope_type"]}
        | {k: v for k, v in LLAMA3_SCALING.items() if k != "rope_type"}
    )
    factors = rope_factors(32, 500000.0, scaling)
    assert factors[0] == 1
    assert factors[-1] == 8
