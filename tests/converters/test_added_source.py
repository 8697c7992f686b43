"""Differences of weights, added to the model that they were taken from."""

import mlx.core as mx
import numpy as np
import pytest
from support.folders import tensors_of
from support.tiny import CONFIGS, random_tensors, write_model

from edgellm.checkpoint.folder import read_checksums
from edgellm.converters import convert
from edgellm.errors import ConfigError, FormatError

BASE = CONFIGS["llama-2"] | {"num_hidden_layers": 1}
TUNED = BASE | {"vocab_size": BASE["vocab_size"] + 2}
WITH_TOKENS = ("model.embed_tokens.weight", "lm_head.weight")


def grown(tensors, new_rows):
    """A base's tensors with rows for two more tokens, as the makers of differences had them."""
    out = dict(tensors)
    for name in WITH_TOKENS:
        row = tensors[name].mean(axis=0, keepdims=True) if new_rows == "mean" else 0
        out[name] = np.concatenate([tensors[name], row + np.zeros((2, tensors[name].shape[1]))])
    return out


def write_difference(folder, new_rows):
    """A folder of tuned weights less those of the base, and the tuned ones."""
    write_model(folder, TUNED)
    tuned, base = random_tensors(TUNED, seed=1), grown(random_tensors(BASE), new_rows)
    difference = {
        name: mx.array((values - base[name]).astype(np.float32)) for name, values in tuned.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), difference)
    return tuned


@pytest.mark.parametrize("new_rows", ["mean", "zeros"])
def test_a_difference_and_its_base_are_the_tuned_model(tmp_path, new_rows):
    base = write_model(tmp_path / "base", BASE)
    tuned = write_difference(tmp_path / "difference", new_rows)
    said = []
    convert(
        tmp_path / "difference",
        tmp_path / "made",
        bits=16,
        add_to=base,
        new_rows=None if new_rows == "mean" else new_rows,
        progress=lambda step: said.append(step.message or ""),
    )
    made = tensors_of(tmp_path / "made")
    assert made.keys() == tuned.keys()
    for name, values in tuned.items():
        assert np.allclose(np.array(made[name]), values, rtol=1e-5, atol=1e-6), name
    assert any("lacks 2 tokens" in message for message in said)


def test_sums_are_rounded_once(tmp_path):
    base = write_model(tmp_path / "base", BASE, dtype=mx.bfloat16)
    difference = write_model(tmp_path / "difference", BASE, seed=1, dtype=mx.float16)
    convert(difference, tmp_path / "made", bits=16, add_to=base)
    one, other, made = map(tensors_of, (base, difference, tmp_path / "made"))
    for name, values in made.items():
        exact = one[name].astype(mx.float32) + other[name].astype(mx.float32)
        assert values.dtype == mx.float16
        assert mx.array_equal(values, exact.astype(mx.float16)), name


def test_a_sum_is_quantized_as_any_model(tmp_path):
    base = write_model(tmp_path / "base", BASE)
    difference = write_model(tmp_path / "difference", BASE, seed=1)
    convert(difference, tmp_path / "sum", bits=16, add_to=base)
    convert(tmp_path / "sum", tmp_path / "one", bits=4)
    convert(difference, tmp_path / "other", bits=4, add_to=base)
    one, other = (
        {record.name: record.sha256 for record in read_checksums(tmp_path / name)}
        for name in ("one", "other")
    )
    weights = [name for name in one if name.endswith(".safetensors")]
    assert weights
    assert all(one[name] == other[name] for name in weights)


REFUSED = {
    "another width": ({"intermediate_size": 160}, {}, FormatError, r"\(64, 160\)"),
    "other heads": ({"num_attention_heads": 8, "num_key_value_heads": 4}, {}, FormatError,
                    "num_attention_heads"),
    "fewer tokens in the difference": ({"vocab_size": BASE["vocab_size"] + 1}, {}, FormatError,
                                       "in its base"),
    "another layer": ({"num_hidden_layers": 2}, {}, FormatError, "only in one"),
    "unknown rows": ({}, {"new_rows": "ones"}, ConfigError, "'ones'"),
    "rows without a base": ({}, {"new_rows": "mean", "add_to": None}, ConfigError, "difference"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_difference_of_the_two_is_refused(tmp_path, kind):
    change, settings, error, said = REFUSED[kind]
    base = write_model(tmp_path / "base", BASE | change, tokenizer=False)
    difference = write_model(tmp_path / "difference", BASE, tokenizer=False)
    with pytest.raises(error, match=said) as refusal:
        convert(difference, tmp_path / "made", **({"add_to": base} | settings))
    assert refusal.value.hint


def test_quantized_models_are_no_base(tmp_path):
    difference = write_model(tmp_path / "difference", BASE)
    convert(difference, tmp_path / "small")
    with pytest.raises(FormatError, match="the base is quantized"):
        convert(difference, tmp_path / "made", add_to=tmp_path / "small")
    with pytest.raises(FormatError, match="the difference is quantized"):
        convert(tmp_path / "small", tmp_path / "made", add_to=difference)
