"""Untrained weights: as training begins, the same each time, of a shape or of a folder's config."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from support.folders import tensors_of
from support.tiny import CONFIGS, write_model
from support.tiny_families import GEMMA2

from edgellm import load
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.cli.app import main
from edgellm.converters.synthetic import UntrainedSource, synthesize
from edgellm.errors import ConfigError, FormatError


def folder_of(path, config):
    """A folder with config and tokenizer alone."""
    write_model(path, config)
    (path / "model.safetensors").unlink()
    return path


def test_matrices_are_normal_and_those_of_the_residual_stream_smaller(tmp_path):
    config = CONFIGS["llama-biases"] | {"initializer_range": 0.05}
    base = folder_of(tmp_path / "base", config)
    synthesize(base, tmp_path / "made", bits=16, dtype="float32", untrained=True)
    layers = config["num_hidden_layers"]
    for name, array in tensors_of(tmp_path / "made").items():
        values = np.array(array)
        if values.ndim == 1:
            assert (values == (0 if name.endswith("bias") else 1)).all(), name
            continue
        expected = 0.05
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            expected /= math.sqrt(2 * layers)
        assert values.std() == pytest.approx(expected, rel=0.05), name
        assert abs(values.mean()) < expected / 10, name


def test_a_folder_keeps_its_tokenizer_and_runs(tmp_path):
    base = folder_of(tmp_path / "base", CONFIGS["qwen3"])
    synthesize(base, tmp_path / "made", bits=16, untrained=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "made" / name).read_bytes() == (base / name).read_bytes()
    with load(tmp_path / "made") as llm:
        assert llm.generate("Once upon a time", max_tokens=2)


def test_rows_are_the_same_in_any_parts():
    source = UntrainedSource("tiny-llama", seed=3)
    name = "model.layers.1.mlp.up_proj.weight"
    whole = source.rows(name, 0, 20)
    parts = [source.rows(name, begin, begin + 5) for begin in range(0, 20, 5)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, UntrainedSource("tiny-llama", seed=4).rows(name, 0, 20))


def test_norms_of_gemma_pass_on_what_they_normalize(tmp_path):
    base = folder_of(tmp_path / "base", GEMMA2)
    synthesize(base, tmp_path / "made", bits=16, dtype="float32", untrained=True)
    assert not mx.any(tensors_of(tmp_path / "made")["model.norm.weight"]), "1 is added to it"


def test_random_weights_of_a_folder_are_quantized_as_asked(tmp_path):
    base = write_model(tmp_path / "base", CONFIGS["llama-3.2"])
    synthesize(base, tmp_path / "made", bits=4, group_size=32)
    assert read_checkpoint(tmp_path / "made").usual_bits == 4


def test_what_cannot_be_is_said(tmp_path):
    base = folder_of(tmp_path / "base", CONFIGS["llama-2"])
    with pytest.raises(ConfigError, match="are not quantized"):
        synthesize(base, tmp_path / "made", bits=4, untrained=True)
    (base / "tokenizer.json").unlink()
    config = json.loads((base / "config.json").read_text()) | {"vocab_size": 100}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no room for a tokenizer of bytes"):
        UntrainedSource(base)
    (base / "config.json").unlink()
    with pytest.raises(FormatError, match=r"no config\.json"):
        UntrainedSource(base)


def test_the_command_makes_a_model_that_is_pretrained(tmp_path):
    base = folder_of(tmp_path / "base", CONFIGS["llama-3.2"])
    texts = tmp_path / "texts.txt"
    texts.write_text("Once upon a time there was a dog.<|endoftext|>The dog found a ball.")
    made, out = tmp_path / "made", tmp_path / "out"
    assert main(["synth", str(base), str(made), "--untrained"]) == 0
    command = ["train", str(made), str(texts), str(out), "--full", "--stage", "text"]
    assert main([*command, "--steps", "2", "--max-tokens", "16"]) == 0
    assert main(["generate", str(out), "Once", "--max-tokens", "2"]) == 0
