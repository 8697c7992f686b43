"""Mixed recipes: derivatives against MLX's own, choices against the budget, and texts against uniform bits."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from support.folders import greedy, tensors_of
from support.tiny import CONFIGS, TEXTS, write_model

import edgellm
from edgellm.checkpoint.quantization import AFFINE_BITS, Quantization
from edgellm.converters import convert
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.mixed_bits import llama_grad as calculus
from edgellm.converters.mixed_bits.allocate import choose_forms
from edgellm.converters.mixed_bits.calibration import TEXT, calibration_tokens
from edgellm.converters.mixed_bits.fisher import _Pass, _Reading, measure
from edgellm.converters.tensors.recipe import ConversionSettings, Matrix, make_recipe
from edgellm.errors import ConfigError, EdgeLLMError, FormatError
from edgellm.hub.resolve import locate

LLAMA = CONFIGS["llama-2"]
TOKENS = np.random.RandomState(0).randint(5, 300, (2, 24))


def arrays(*shapes):
    random = np.random.RandomState(1)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def pulled_back(function, inputs, gradient):
    """MLX's derivatives by each input."""
    _, found = mx.vjp(
        lambda *given: [function(*given)], [mx.array(item) for item in inputs], [mx.array(gradient)]
    )
    return [np.array(item) for item in found]


def close(ours, theirs):
    return np.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_derivatives_are_mlxs():
    x, weight, gradient = arrays((5, 16), (16,), (5, 16))
    theirs = pulled_back(lambda x: mx.fast.rms_norm(x, mx.array(weight), 1e-5), [x], gradient)
    assert close(
        calculus.norm(x, weight, 1e-5), mx.fast.rms_norm(mx.array(x), mx.array(weight), 1e-5)
    )
    assert close(calculus.norm_back(x, weight, 1e-5, gradient), theirs[0])
    gate, up = arrays((5, 8), (5, 8))
    theirs = pulled_back(lambda gate, up: gate * mx.sigmoid(gate) * up, [gate, up], gradient[:, :8])
    assert all(map(close, calculus.gated_back(gate, up, gradient[:, :8]), theirs))


@pytest.mark.parametrize("window", [None, 3])
def test_attention_and_its_derivatives_are_mlxs(window):
    queries, keys, values, gradient = arrays((2, 4, 9, 8), (2, 2, 9, 8), (2, 2, 9, 8), (2, 4, 9, 8))
    at = np.arange(9)
    seen = (at[None] <= at[:, None]) & (at[None] > at[:, None] - (window or 9))

    def theirs(queries, keys, values):
        return mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=8**-0.5, mask=mx.array(seen)
        )

    assert close(
        calculus.attention(queries, keys, values, window),
        theirs(*map(mx.array, (queries, keys, values))),
    )
    ours = calculus.attention_back(queries, keys, values, window, gradient)
    assert all(map(close, ours, pulled_back(theirs, [queries, keys, values], gradient)))


class Recording(_Reading):
    """Notes the loss's derivative by each matrix, which costs leave no trace of."""

    def back(self, path, x, gradient):
        self.found[path] = gradient.T @ x
        return super().back(path, x, gradient)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_loss_is_the_models(tmp_path, kind):
    source = HuggingFaceSource(write_model(tmp_path / "plain", CONFIGS[kind]))
    recipe = make_recipe(source, ConversionSettings(bits=16))
    _, loss = measure(
        source, recipe, TOKENS.tolist(), group_size=32, progress=lambda done, total: None
    )
    with edgellm.load(tmp_path / "plain", memory="500MB", backend="mlx") as llm:
        logits = mx.stack([llm.logits(row[:-1].tolist()) for row in TOKENS])
    chosen = mx.take_along_axis(logits, mx.array(TOKENS[:, 1:, None]), axis=-1)[..., 0]
    assert loss == pytest.approx(float(mx.mean(mx.logsumexp(logits, axis=-1) - chosen)), rel=1e-4)


@pytest.mark.parametrize(
    "kind", [kind for kind in CONFIGS if "window" not in kind and kind != "qwen3-biases"]
)  # mlx-lm has none
def test_loss_and_derivatives_are_those_of_mlx_lm(tmp_path, kind):
    from mlx import nn
    from mlx_lm.utils import load_model

    convert(write_model(tmp_path / "plain", CONFIGS[kind]), tmp_path / "made", bits=16)
    source = HuggingFaceSource(tmp_path / "made")
    reading = Recording(
        source, make_recipe(source, ConversionSettings(bits=16)), 32, lambda done, total: None
    )
    reading.found = {}
    loss = _Pass(reading, TOKENS).run()
    model, _ = load_model(tmp_path / "made")

    def total(model):
        logits = model(mx.array(TOKENS[:, :-1]))
        return nn.losses.cross_entropy(logits, mx.array(TOKENS[:, 1:]), reduction="sum")

    theirs, gradients = nn.value_and_grad(model, total)(model)
    assert loss == pytest.approx(
        float(theirs) / (TOKENS.shape[0] * (TOKENS.shape[1] - 1)), rel=1e-5
    )
    gradients = dict(tree_flatten(gradients))
    for path, found in reading.found.items():
        expected = np.array(gradients[f"{path}.weight"])
        assert np.allclose(found, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max()), path
    assert reading.costs.keys() == {
        name.removesuffix(".weight") for name in gradients if gradients[name].ndim == 2
    }


def test_a_cost_is_the_sum_that_it_is_said_to_be(tmp_path):
    source = HuggingFaceSource(write_model(tmp_path / "plain", LLAMA))
    recipe, seen = make_recipe(source, ConversionSettings(bits=16)), {}

    class Keeping(_Reading):
        def back(self, path, x, gradient):
            seen[path] = x, gradient
            return super().back(path, x, gradient)

    reading = Keeping(source, recipe, 32, lambda done, total: None)
    _Pass(reading, TOKENS).run()
    weights = tensors_of(tmp_path / "plain")
    for path, (x, gradient) in seen.items():
        weight = weights[f"{path}.weight"]
        for bits in AFFINE_BITS:
            error = np.array(mx.dequantize(*mx.quantize(weight, 32, bits), 32, bits) - weight)
            exact = np.mean(gradient**2, 0) @ error**2 @ np.mean(x**2, 0) / 2
            assert reading.costs[path][bits] == pytest.approx(
                float(exact), rel=0.02 if bits == 8 else 1e-3
            )


def matrices(layers):
    shapes = {
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
    }
    shapes |= {
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (128, 64),
        "mlp.up_proj": (128, 64),
        "mlp.down_proj": (64, 128),
    }
    paths = {
        f"model.layers.{index}.{name}": shape
        for index in range(layers)
        for name, shape in shapes.items()
    }
    paths |= {"model.embed_tokens": (320, 64), "lm_head": (320, 64)}
    return {path: Matrix(path, shape, None, None, "F16") for path, shape in paths.items()}


@given(st.data(), st.floats(2.6, 9))
def test_choices_keep_the_budget_and_the_stacks(data, average):
    known = matrices(2)
    costs = {
        path: {bits: data.draw(st.floats(1e-6, 1)) * 4.0**-bits for bits in AFFINE_BITS}
        for path in known
    }
    forms = choose_forms(known, costs, average_bits=average, group_size=64)
    assert forms.keys() == known.keys()
    weights = sum(math.prod(matrix.shape) for matrix in known.values())
    stored = {
        path: math.prod(matrix.shape) * (forms[path].bits + 0.5) for path, matrix in known.items()
    }
    assert sum(stored.values()) <= average * weights * (1 + 1e-12)
    for index in range(2):
        layer = f"model.layers.{index}."
        assert len({forms[f"{layer}self_attn.{letter}_proj"] for letter in "qkv"}) == 1
        assert forms[f"{layer}mlp.gate_proj"] == forms[f"{layer}mlp.up_proj"]


def test_equal_costs_are_shared_out_and_one_that_stands_out_gets_more():
    known = matrices(2)
    costs = {
        path: {bits: math.prod(matrix.shape) * 4.0**-bits for bits in AFFINE_BITS}
        for path, matrix in known.items()
    }
    assert {
        form.bits for form in choose_forms(known, costs, average_bits=4.5, group_size=64).values()
    } == {4}
    costs["lm_head"] = {bits: 1000 * cost for bits, cost in costs["lm_head"].items()}
    forms = choose_forms(known, costs, average_bits=4.5, group_size=64)
    assert forms["lm_head"].bits > 5
    assert max(form.bits for path, form in forms.items() if path != "lm_head") <= 4


def test_a_mixed_folder_opens_in_mlx_lm_and_has_the_size(tmp_path):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float16)
    steps = []
    report = convert(
        source, tmp_path / "made", recipe="mixed", average_bits=5.0, progress=steps.append
    )
    again = convert(source, tmp_path / "again", recipe="mixed", average_bits=5.0)
    assert again.exceptions == report.exceptions
    block = json.loads((tmp_path / "made" / "config.json").read_text())["quantization"]
    assert {path: value for path, value in block.items() if isinstance(value, dict)} == {
        path: form.as_config() for path, form in report.exceptions.items()
    }
    assert report.exceptions
    tensors = tensors_of(tmp_path / "made")
    quantized = {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")}
    nbytes = sum(
        tensor.nbytes for name, tensor in tensors.items() if name.rpartition(".")[0] in quantized
    )
    weights = sum(
        math.prod(tensor.shape)
        for name, tensor in tensors_of(source).items()
        if len(tensor.shape) == 2
    )
    assert 4.7 < nbytes * 8 / weights <= 5.0
    assert len(greedy(tmp_path / "made")) == 29
    with edgellm.load(tmp_path / "made", memory="500MB") as llm:
        assert len(llm.generate("The little dog", max_tokens=8).text) >= 0
    measuring = [step for step in steps if step.file.startswith("measuring")]
    assert measuring
    assert measuring[-1].bytes_done == measuring[-1].bytes_total


STORY = """\
Lily had a red kite. One windy day she took it to the hill with her dad. "Hold it tight," he said. Lily ran and ran, and
the kite went up into the sky. Then the wind pulled very hard, and the string slipped out of her hand. The kite flew
away. Lily began to cry. A boy saw it land in a big tree. He climbed up and brought it down. "Thank you!" said Lily. "Do
you want to play with me?" The boy smiled and said yes. They played until the sun went down, and from that day on they
were good friends.
"""


def test_on_the_bundled_model_mixed_is_better_than_uniform_of_the_same_size(tmp_path):
    (tmp_path / "text").write_text(" ".join(TEXTS) + STORY[:250])
    uniform = convert(locate("stories"), tmp_path / "uniform", bits=3)
    mixed = convert(
        locate("stories"),
        tmp_path / "mixed",
        recipe="mixed",
        average_bits=3.5,
        calibration=tmp_path / "text",
    )
    assert mixed.weight_bytes <= uniform.weight_bytes
    losses = []
    for path in (tmp_path / "uniform", tmp_path / "mixed"):
        with edgellm.load(path, memory="500MB") as llm:
            ids = llm.tokenizer.encode(STORY[250:])
            logits = llm.logits(ids[:-1])
            chosen = mx.take_along_axis(logits, mx.array(ids[1:])[:, None], axis=-1)[:, 0]
            losses.append(float(mx.mean(mx.logsumexp(logits, axis=-1) - chosen)))
    assert losses[1] < losses[0] - 0.01


def test_settings_that_make_no_sense_are_refused(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    for wrong in (
        {"recipe": "clever"},
        {"recipe": "mixed", "bits": 4},
        {"average_bits": 4.5},
        {"recipe": "uniform", "calibration": "x"},
        {"recipe": "mixed", "average_bits": 1.0},
        {"recipe": "mixed", "average_bits": float("nan")},
        {"recipe": "mixed", "average_bits": 2.1},
        {"recipe": "mixed", "calibration": tmp_path / "nothing"},
    ):
        with pytest.raises(EdgeLLMError) as caught:
            convert(source, tmp_path / "made", **wrong)
        assert caught.value.hint or not isinstance(caught.value, ConfigError)
    (tmp_path / "short").write_text("too short")
    with pytest.raises(ConfigError, match="tokens"):
        convert(source, tmp_path / "made", recipe="mixed", calibration=tmp_path / "short")
    assert not (tmp_path / "made").exists()
    bad = write_model(tmp_path / "bad", LLAMA | {"rms_norm_eps": 1e-30})
    tensors = tensors_of(bad)
    mx.eval(tensors)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * 1e30
    mx.save_safetensors(str(bad / "model.safetensors"), tensors)
    with pytest.raises(FormatError, match="not finite"):
        convert(bad, tmp_path / "made", recipe="mixed")


def test_the_text_that_comes_along_fills_its_sequences():
    folder = locate("stories")
    files = {file.name: file for file in folder.iterdir() if "token" in file.name}
    sequences = calibration_tokens(files, None, vocabulary=1 << 20)
    assert [len(sequence) for sequence in sequences] == [256, 256]
    assert len(TEXT.split()) > 400


def test_a_quantized_source_is_measured_as_what_it_stands_for(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "eight", bits=8, group_size=32)
    found = []
    for path in (source, tmp_path / "eight"):
        opened = HuggingFaceSource(path)
        recipe = make_recipe(opened, ConversionSettings(bits=16))
        found.append(
            measure(
                opened, recipe, TOKENS.tolist(), group_size=64, progress=lambda done, total: None
            )
        )
    assert found[0][1] == pytest.approx(found[1][1], rel=0.02)
    for path, costs in found[0][0].items():
        assert costs[2] == pytest.approx(found[1][0][path][2], rel=0.3)
    report = convert(tmp_path / "eight", tmp_path / "made", recipe="mixed", average_bits=4.5)
    assert all(form is None or form.group_size == 64 for form in report.exceptions.values())
    assert isinstance(report.quantization, Quantization)
    assert report.errors
