"""Synthetic models: the published shapes, plausible numbers, and the layout that paging wants."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from support.tiny import MISTRAL

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DATA_ALIGNMENT
from edgellm.converters.synthetic import SyntheticSource, synthesize
from edgellm.converters.tensors.dtypes import portable_config
from edgellm.errors import ConfigError, ConversionError
from edgellm.models.presets import SHAPES, shape_config

MILLIONS = {
    "llama-2-7b": 6738,
    "llama-2-13b": 13016,
    "llama-2-70b": 68977,
    "tinyllama-1.1b": 1100,
    "llama-3-8b": 8030,
    "llama-3-70b": 70554,
    "llama-3.1-8b": 8030,
    "llama-3.2-1b": 1236,
    "llama-3.2-3b": 3213,
    "mistral-7b": 7248,
    "qwen2.5-0.5b": 494,
    "qwen2.5-1.5b": 1544,
    "qwen2.5-3b": 3086,
    "qwen2.5-7b": 7616,
    "qwen2.5-14b": 14770,
    "mistral-small-24b": 23572,
    "gemma-2-2b": 2614,
    "gemma-3-1b": 1000,
    "gemma-3-4b": 3880,
    "phi-4-14b": 14660,
    "phi-4-mini": 3836,
    "qwen2.5-32b": 32764,
    "qwen2.5-72b": 72706,
    "qwen3-0.6b": 596,
    "qwen3-1.7b": 1721,
    "qwen3-4b": 4022,
    "qwen3-8b": 8191,
    "qwen3-14b": 14768,
    "smollm3-3b": 3075,
    "olmo2-1b": 1485,
    "olmo2-7b": 7299,
    "olmo2-13b": 13716,
    "olmo3-7b": 7298,
    "olmo3-32b": 32234,
    "exaone4-1.2b": 1279,
    "exaone4-32b": 32003,
    "hunyuan-0.5b": 539,
    "hunyuan-1.8b": 1791,
    "hunyuan-4b": 4222,
    "hunyuan-7b": 7505,
    "qwen3-32b": 32762,
}
"""Parameters, as the makers' model cards and checkpoints have them."""

TINY = [name for name in SHAPES if name.startswith("tiny-")]


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def dequantized(arrays, path, bits):
    parts = [arrays[f"{path}.{part}"] for part in ("weight", "scales", "biases")]
    return np.array(mx.dequantize(*parts, group_size=64, bits=bits).astype(mx.float32))


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_that_of_the_published_model(name):
    config = ModelConfig.from_dict(shape_config(name))
    each = sum(math.prod(shape) for shape in config.tensor_shapes().values())
    count = config.num_hidden_layers * each + sum(
        math.prod(shape) for shape in config.outer_shapes().values()
    )
    assert round(count / 1e6) == MILLIONS.get(name, 1)


def test_a_shape_means_what_its_dialect_says():
    """Hunyuan's rotary base grows by its alpha."""
    config = ModelConfig.from_dict(SyntheticSource("hunyuan-0.5b", None).config)
    assert config.rope_theta == pytest.approx(10000 * 1000 ** (128 / 126))


def test_a_wrong_name_gets_the_closest():
    with pytest.raises(ConfigError) as raised:
        shape_config("lama2-7b")
    assert raised.value.hint == "did you mean llama-2-7b?"
    with pytest.raises(ConfigError, match="no shape 'xyz'"):
        synthesize("xyz", "never-made")


@pytest.mark.parametrize(
    ("shape", "bits"),
    [
        *((TINY[0], bits) for bits in (1, 2, 3, 4, 5, 6, 8, 16)),
        *((shape, bits) for shape in TINY[1:] for bits in (4, 16)),
    ],
)
def test_every_tiny_shape_runs_with_finite_numbers_of_a_sensible_size(tmp_path, shape, bits):
    synthesize(shape, tmp_path / "model", bits=bits)
    with edgellm.load(tmp_path / "model", context=64) as llm:
        ids = llm.tokenizer.encode("Hello, world")
        logits = np.array(llm.logits(ids))
        assert np.isfinite(logits).all()
        assert 0.2 < logits.std() < 5
        done = llm.generate("Hi", max_tokens=4)
        assert 1 <= len(done.tokens) <= 4


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_layer_is_one_aligned_read(tmp_path, bits):
    synthesize("tiny-llama", tmp_path / "model", bits=bits)
    checkpoint = read_checkpoint(tmp_path / "model")
    for number, layer in enumerate(checkpoint.layers):
        (extent,) = layer.extents
        assert extent.file.name == f"model-layer-{number:05}.safetensors"
        assert extent.offset % DATA_ALIGNMENT == extent.buffer_offset == 0
        assert extent.offset + extent.nbytes == extent.file.stat().st_size
        assert layer.layout == checkpoint.layers[0].layout


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_quantized_weights_keep_the_size_of_what_they_multiply(tmp_path, bits):
    synthesize("tiny-llama", tmp_path / "model", bits=bits)
    arrays = mx.load(str(tmp_path / "model" / "model-layer-00003.safetensors"))
    for name, columns in (("mlp.gate_proj", 128), ("mlp.down_proj", 192)):
        weights = dequantized(arrays, f"model.layers.3.{name}", bits)
        assert weights.shape[1] == columns
        assert weights.std() * math.sqrt(columns) == pytest.approx(1.0, rel=0.05)
        assert abs(weights.mean()) < 0.1 * weights.std()
        per_group = weights.reshape(len(weights), -1, 64).std(axis=-1)
        assert per_group.std() > 0.05 * per_group.mean(), "groups have scales of their own"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_unquantized_weights_keep_it_within_a_factor_of_two(tmp_path, dtype):
    synthesize("tiny-qwen2", tmp_path / "model", bits=16, dtype=dtype)
    arrays = mx.load(str(tmp_path / "model" / "model-layer-00000.safetensors"))
    for name, array in arrays.items():
        values = np.array(array.astype(mx.float32))
        assert array.dtype == getattr(mx, dtype)
        assert np.isfinite(values).all()
        if values.ndim == 2:
            assert 0.5 < values.std() * math.sqrt(values.shape[1]) < 2, name
            assert abs(values.mean()) < 0.1 * values.std()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["torch_dtype"] == dtype


def test_equal_arguments_make_equal_bytes_and_another_seed_makes_others(tmp_path):
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        synthesize("tiny-llama", tmp_path / name, seed=seed)
    first, second, third = (contents(tmp_path / name) for name in ("first", "second", "third"))
    assert first == second
    assert first.keys() == third.keys()
    assert first["model-layer-00000.safetensors"] != third["model-layer-00000.safetensors"]
    assert first["model-layer-00000.safetensors"] != first["model-layer-00001.safetensors"]


def test_any_rows_are_those_of_the_whole():
    source = SyntheticSource("tiny-llama", Quantization(3, 64))
    for name in (
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj.scales",
        "model.layers.1.mlp.up_proj.biases",
    ):
        tensor = source.tensors[name]
        whole = source.rows(name, 0, tensor.rows)
        for start, stop in ((0, 1), (1, 4), (5, 6), (7, tensor.rows)):
            assert (
                source.rows(name, start, stop)
                == whole[start * tensor.row_bytes : stop * tensor.row_bytes]
            ).all()


def test_what_is_there_is_replaced_only_on_demand(tmp_path):
    synthesize("tiny-llama", tmp_path / "model")
    with pytest.raises(ConversionError, match="already exists"):
        synthesize("tiny-llama", tmp_path / "model", seed=1)
    before = contents(tmp_path / "model")
    synthesize("tiny-llama", tmp_path / "model", seed=1, force=True)
    assert contents(tmp_path / "model") != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_progress_reaches_the_end(tmp_path):
    steps = []
    report = synthesize("tiny-llama", tmp_path / "model", progress=steps.append)
    assert [step.bytes_done for step in steps] == sorted(step.bytes_done for step in steps)
    assert steps[-1].bytes_done == steps[-1].bytes_total == report.weight_bytes


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen3"])
def test_the_tokenizer_is_plain_bytes_padded_to_the_vocabulary(tmp_path, shape):
    synthesize(shape, tmp_path / "model")
    with edgellm.load(tmp_path / "model", context=64) as llm:
        text = "Grüße, 世界! \n\t🙂"
        ids = llm.tokenizer.encode(text)
        assert ids[1:] == list(text.encode())
        assert llm.tokenizer.decode(ids[1:]) == text
        assert llm.tokenizer.decode([600]) != llm.tokenizer.decode([601]) != ""
        with llm.chat(max_tokens=2) as chat:
            assert isinstance(chat.send("Hi"), str)
    written = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert len(written["model"]["vocab"]) == shape_config(shape)["vocab_size"]


def test_mlx_lm_opens_it_and_computes_the_same(tmp_path):
    from mlx_lm import load

    synthesize("tiny-llama", tmp_path / "model", dtype="float32")
    theirs, tokenizer = load(str(tmp_path / "model"))
    with edgellm.load(tmp_path / "model", context=64, activations="float", kv_bits=32) as ours:
        ids = ours.tokenizer.encode("Hello")
        assert tokenizer.encode("Hello") == ids
        expected = np.array(theirs(mx.array([ids]))[0].astype(mx.float32))
        assert np.abs(np.array(ours.logits(ids)) - expected).max() < 1e-3


def test_a_mistral_without_a_window_says_so_and_one_that_is_silent_has_transformers():
    assert ModelConfig.from_dict(shape_config("mistral-7b")).sliding_window is None
    silent = {key: value for key, value in MISTRAL.items() if key != "sliding_window"}
    written = portable_config(silent, ModelConfig.from_dict(silent), "F16", None)
    assert written["sliding_window"] == 4096
