"""Quantization by a text: against MLX's rounding, in the same form, stopped and resumed."""

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

LAYERS = 2
UNTIED = CONFIGS["llama-2"] | {"num_hidden_layers": LAYERS}
TIED = CONFIGS["qwen3-biases"] | {"num_hidden_layers": LAYERS, "tie_word_embeddings": True}
FORM = {"bits": 3, "group_size": 32}


def header(file):
    content = file.read_bytes()
    return content[: 8 + int.from_bytes(content[:8], "little")], len(content)


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
    rows = ColumnQuantizer(hessian).quantize(weight, Quantization(bits=bits, group_size=64), "F16")
    packed = mx.array(rows.packed(bits).view(np.uint32))
    made = mx.dequantize(packed, mx.array(rows.scales), mx.array(rows.biases), 64, bits)
    assert np.array_equal(np.array(made), rows.values())
    nearest = np.array(mx.dequantize(*mx.quantize(mx.array(weight), 64, bits), 64, bits))
    errors = [np.square(inputs @ (values - weight).T).sum() for values in (rows.values(), nearest)]
    assert errors[0] < 0.5 * errors[1]


def test_equal_weights_and_a_text_that_says_nothing_are_quantized():
    weight = np.repeat(np.float32([[1.5], [0.0], [-2.0]]), 64, axis=1)
    rows = ColumnQuantizer(np.zeros((64, 64), np.float32)).quantize(
        weight, Quantization(bits=4, group_size=64), "F16"
    )
    assert np.array_equal(rows.values(), weight)


@pytest.fixture(scope="module", params=[UNTIED, TIED], ids=["untied", "tied"])
def models(request, tmp_path_factory):
    """A folder with a model, its conversion by nearest and by gptq, the text, and the layers."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "source", request.param)
    (folder / "text").write_text(" ".join(TEXTS * 2))
    convert(folder / "source", folder / "nearest", **FORM)
    return folder, converted(folder, "gptq")


def converted(folder, name, stop_behind=LAYERS + 1):
    """Convert by gptq; return the numbers of layers made, the last of which may stop it."""
    layers = []

    def note(step):
        if step.file == QUANTIZING:
            layers.append(step.bytes_done)
            if step.bytes_done == stop_behind:
                raise KeyboardInterrupt

    try:
        text = folder / "text"
        convert(
            folder / "source", folder / name, method="gptq", calibration=text, progress=note, **FORM
        )
    except KeyboardInterrupt:
        assert not (folder / name).exists()
    return layers


def test_a_model_changes_less_at_the_same_size(models):
    folder, _ = models
    sums, logits = [], []
    for name in ("source", "nearest", "gptq"):
        with edgellm.load(folder / name, memory="500MB", backend="mlx") as llm:
            ids = llm.tokenizer.encode(" ".join(TEXTS))
            logits.append(np.array(llm.logits(ids)))
        sums.append(LogitComparison())
        sums[-1].add(logits[0], logits[-1], ids)
    assert sums[2].kl_sum < 0.8 * sums[1].kl_sum


def test_folders_have_the_form_of_those_rounded_to_nearest(models):
    folder, _ = models
    nearest, gptq = folder / "nearest", folder / "gptq"
    names = sorted(file.name for file in nearest.iterdir())
    assert names == sorted(file.name for file in gptq.iterdir())
    assert (nearest / "config.json").read_bytes() == (gptq / "config.json").read_bytes()
    for name in names:
        if name.endswith(".safetensors"):
            assert header(nearest / name) == header(gptq / name)


def test_layers_are_made_once(models):
    _, layers = models
    assert layers == [1, 2]


@pytest.mark.parametrize("models", [UNTIED], indirect=True, ids=["untied"])
def test_a_stopped_conversion_ends_in_the_same_bytes(models):
    folder, _ = models
    assert converted(folder, "stopped", stop_behind=2) == [1, 2]
    assert converted(folder, "stopped") == [1, 2]
    assert bytes_of(folder / "stopped") == bytes_of(folder / "gptq")


def test_settings_that_make_no_sense_are_refused(tmp_path):
    source = write_model(tmp_path / "source", UNTIED)
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
