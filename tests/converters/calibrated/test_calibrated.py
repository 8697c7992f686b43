"""Quantization by a text: against MLX's rounding, in mlx-lm, stopped and repeated."""

import mlx.core as mx
import numpy as np
import pytest
from support.tiny import CONFIGS, TEXTS, write_model

import edgellm
from edgellm.bench.evaluation.divergence import LogitComparison
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.converters.calibrated.calibrated_source import QUANTIZING
from edgellm.converters.calibrated.column_quantizer import ColumnQuantizer
from edgellm.errors import ConfigError

TIED = "llama-2"
GPTQ = {"method": "gptq", "bits": 3, "group_size": 32}


def write_text(path):
    path.write_text(" ".join(TEXTS * 6))
    return path


def bytes_of(folder):
    return {
        file.name: file.read_bytes() for file in folder.iterdir() if file.name != "edgellm.json"
    }


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_change_less_than_by_rounding_to_nearest(bits):
    random = np.random.RandomState(0)
    inputs = random.randn(500, 16) @ random.randn(16, 128) + 0.3 * random.randn(500, 128)
    weight = random.randn(24, 128).astype(np.float32)
    hessian = (inputs.T @ inputs / 500).astype(np.float32)
    rows = ColumnQuantizer(hessian).quantize(
        weight, Quantization(bits=bits, group_size=64), mx.float16
    )
    packed = mx.array(rows.packed(bits).view(np.uint32))
    made = mx.dequantize(packed, mx.array(rows.scales), mx.array(rows.biases), 64, bits)
    assert np.array_equal(np.array(made), rows.values())
    nearest = np.array(mx.dequantize(*mx.quantize(mx.array(weight), 64, bits), 64, bits))
    errors = [np.square(inputs @ (values - weight).T).sum() for values in (rows.values(), nearest)]
    assert errors[0] < 0.5 * errors[1]


def test_equal_weights_and_a_text_that_says_nothing_are_quantized():
    weight = np.repeat(np.float32([[1.5], [0.0], [-2.0]]), 64, axis=1)
    rows = ColumnQuantizer(np.zeros((64, 64), np.float32)).quantize(
        weight, Quantization(bits=4, group_size=64), mx.float16
    )
    assert np.array_equal(rows.values(), weight)


@pytest.mark.parametrize("kind", [TIED, "qwen3-biases"])
def test_a_model_changes_less_at_the_same_size(tmp_path, kind):
    source = write_model(tmp_path / "source", CONFIGS[kind])
    text = write_text(tmp_path / "text")
    convert(source, tmp_path / "nearest", bits=3, group_size=32)
    convert(source, tmp_path / "gptq", calibration=text, **GPTQ)
    sums, logits, sizes = [], [], []
    for name in ("source", "nearest", "gptq"):
        files = (tmp_path / name).glob("*.safetensors")
        sizes.append(sum(file.stat().st_size for file in files))
        with edgellm.load(tmp_path / name, memory="500MB", backend="mlx") as llm:
            ids = llm.tokenizer.encode(" ".join(TEXTS))
            logits.append(np.array(llm.logits(ids)))
        sums.append(LogitComparison())
        sums[-1].add(logits[0], logits[-1], ids)
    assert sums[2].kl_sum < 0.8 * sums[1].kl_sum
    assert sizes[1] == sizes[2]


def test_mlx_lm_opens_it(tmp_path):
    from mlx_lm.utils import load_model

    source = write_model(tmp_path / "source", CONFIGS[TIED])
    convert(source, tmp_path / "made", calibration=write_text(tmp_path / "text"), **GPTQ)
    model, _ = load_model(tmp_path / "made")
    ids = list(range(5, 45))
    with edgellm.load(tmp_path / "made", memory="500MB", backend="mlx") as llm:
        ours = np.array(llm.logits(ids))
    np.testing.assert_allclose(ours, np.array(model(mx.array([ids])))[0], atol=1e-3)


def test_a_stopped_conversion_ends_in_the_same_bytes(tmp_path):
    source = write_model(tmp_path / "source", CONFIGS[TIED])
    settings = GPTQ | {"calibration": write_text(tmp_path / "text")}
    layers = []

    def stop(step):
        if step.file == QUANTIZING:
            layers.append(step.bytes_done)
            if step.bytes_done == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "made", progress=stop, **settings)
    assert layers == [1, 2]
    assert not (tmp_path / "made").exists()
    convert(source, tmp_path / "made", **settings)
    convert(source, tmp_path / "again", **settings)
    assert bytes_of(tmp_path / "made") == bytes_of(tmp_path / "again")


def test_settings_that_make_no_sense_are_refused(tmp_path):
    source = write_model(tmp_path / "source", CONFIGS[TIED])
    (tmp_path / "empty").write_text("")
    for wrong, words in (
        ({"method": "clever"}, "no method"),
        ({"method": "gptq"}, "none is given"),
        ({"method": "gptq", "bits": 16, "calibration": tmp_path / "empty"}, "16 bits"),
        ({"method": "gptq", "calibration": tmp_path / "empty"}, "tokens"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            convert(source, tmp_path / "made", **wrong)
        assert caught.value.hint
    assert not (tmp_path / "made").exists()
