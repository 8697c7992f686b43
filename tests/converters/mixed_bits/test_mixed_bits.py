"""Mixed recipes: derivatives against mlx-lm's, choices against budgets, texts against uniform."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_unflatten
from support.folders import logits_by_mlx_lm, tensors_of
from support.tiny import CONFIGS, write_model
from support.tiny_families import GEMMA2

import edgellm
from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.mixed_bits.allocate import choose_forms
from edgellm.converters.mixed_bits.backward import BackwardPass, FisherRows, fisher_diagonal
from edgellm.converters.mixed_bits.calibration import TEXT, calibration_tokens
from edgellm.converters.mixed_bits.fisher import MIXED_BITS, cost_by_bits, measure
from edgellm.converters.tensors.recipe import Matrix, make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.errors import ConfigError, EdgeLLMError, FormatError
from edgellm.hub.resolve import locate

TWO_LAYERS = {"num_hidden_layers": 2}
LLAMA = CONFIGS["llama-2"] | TWO_LAYERS
TOKENS = np.random.RandomState(0).randint(5, 300, (2, 24))


def open_model(path):
    source = HuggingFaceSource(path)
    return source, make_recipe(source, ConversionSettings(bits=16))


def ignore(done, total):
    pass


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_loss_is_the_models(tmp_path, kind):
    source, recipe = open_model(write_model(tmp_path / "plain", CONFIGS[kind] | TWO_LAYERS))
    backward = BackwardPass(source, recipe, TOKENS.tolist(), ignore)
    for _ in backward.run():
        pass
    with edgellm.load(tmp_path / "plain", memory="500MB", backend="mlx") as llm:
        logits = mx.stack([llm.logits(row[:-1].tolist()) for row in TOKENS])
    chosen = mx.take_along_axis(logits, mx.array(TOKENS[:, 1:, None]), axis=-1)[..., 0]
    expected = float(mx.mean(mx.logsumexp(logits, axis=-1) - chosen))
    assert backward.loss == pytest.approx(expected, rel=1e-4)


def tapped(module, path, reads):
    """Wrap a module: its inputs are noted, and a zero is added to its output, to derive by."""
    from mlx import nn

    class Tapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.tap = mx.array(0.0)
            self.module = module

        def __call__(self, x):
            reads[path] = x
            return self.module(x) + self.tap

        def as_linear(self, x):
            reads["tied head"] = x
            return self.module.as_linear(x)

    return Tapped()


def fisher_of_mlx_lm(folder):
    """Return loss, mean squares of inputs and derivatives by path, the embedding's derivatives."""
    from mlx import nn
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    reads, tokens = {}, mx.array(TOKENS)
    modules = [
        (path, tapped(module, path, reads))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    ]
    model.update_modules(tree_unflatten(modules))
    for _, module in modules:
        rows = module.module.weight.shape[0]
        if isinstance(module.module, nn.Embedding):
            rows = module.module.weight.shape[1]
        module.tap = mx.zeros((*TOKENS.shape, rows))

    def total(model):
        logits = model(tokens)[:, :-1]
        return nn.losses.cross_entropy(logits, tokens[:, 1:], reduction="sum")

    loss, gradients = nn.value_and_grad(model, total)(model)
    taps = {
        name.removesuffix(".tap"): np.array(gradient)
        for name, gradient in tree_flatten(gradients)
        if name.endswith(".tap")
    }
    means = {
        path: (np.square(np.array(reads[path])).mean((0, 1)), np.square(tap).mean((0, 1)))
        for path, tap in taps.items()
    }
    return float(loss) / TOKENS[:, 1:].size, means, taps["model.embed_tokens"]


DERIVED = {
    kind: config
    for kind, config in CONFIGS.items()
    if "window" not in kind and kind != "qwen3-biases"  # mlx-lm has none
} | {"gemma2": GEMMA2 | {"sliding_window": 100}}


@pytest.mark.parametrize("kind", DERIVED)
def test_loss_and_derivatives_are_those_of_mlx_lm(tmp_path, kind):
    config = DERIVED[kind] | TWO_LAYERS
    convert(write_model(tmp_path / "plain", config), tmp_path / "made", bits=16)
    source, recipe = open_model(tmp_path / "made")
    backward = BackwardPass(source, recipe, TOKENS.tolist(), ignore)
    seen = list(backward.run())
    loss, means, by_embedding = fisher_of_mlx_lm(tmp_path / "made")
    assert backward.loss == pytest.approx(loss, rel=1e-5)
    assert {item.path for item in seen} == recipe.matrices.keys()
    weights = tensors_of(tmp_path / "made")
    for item in seen[:-1]:
        assert np.array_equal(item.rows, weights[f"{item.path}.weight"].astype(mx.float32))
        if item.path == "model.embed_tokens":  # as the tied head, which mlx-lm has no module for
            continue
        reads, writes = means[item.path]
        expected = writes[:, None] * reads
        assert np.allclose(item.fisher, expected, rtol=1e-2, atol=1e-4 * expected.max()), item.path
    used = np.unique(TOKENS)
    expected = np.stack([np.square(by_embedding)[token == TOKENS].sum(0) for token in used])
    expected /= TOKENS.size
    assert seen[-1].path == "model.embed_tokens"
    assert np.allclose(seen[-1].fisher, expected, rtol=1e-2, atol=1e-4 * expected.max())


def test_a_cost_is_the_sum_that_it_is_said_to_be(tmp_path):
    source, recipe = open_model(write_model(tmp_path / "plain", LLAMA))
    costs, _ = measure(source, recipe, TOKENS.tolist(), group_size=32, progress=ignore)
    weights = tensors_of(tmp_path / "plain")
    for item in BackwardPass(source, recipe, TOKENS.tolist(), ignore).run():
        if item.path == "model.embed_tokens":  # of which only the text's rows are there
            continue
        weight = weights[f"{item.path}.weight"]
        for bits in MIXED_BITS:
            error = np.array(mx.dequantize(*mx.quantize(weight, 32, bits), 32, bits) - weight)
            exact = float(np.sum(np.array(item.fisher) * np.square(error))) / 2
            assert costs[item.path][bits] == pytest.approx(exact, rel=0.02 if bits == 8 else 1e-3)


def test_a_sample_of_rows_stands_for_all():
    rows = np.random.RandomState(1).standard_normal((2048, 64)).astype(np.float32)
    inputs = mx.array(np.random.RandomState(2).random(64).astype(np.float32))
    outputs = mx.array(np.random.RandomState(3).random(2048).astype(np.float32))
    costs = []
    for step in (1, 4):
        fisher = fisher_diagonal(inputs, outputs, step)
        seen = FisherRows("x", mx.array(rows[::step]), fisher)
        costs.append(cost_by_bits(seen, 64, mx.float16))
    assert costs[0] == pytest.approx(costs[1], rel=0.05)


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
    return {path: Matrix(path, shape, None, None, "F16", path) for path, shape in paths.items()}


@given(st.integers(0, 1 << 32), st.floats(2.6, 9))
def test_choices_keep_the_budget_and_the_stacks(seed, average):
    known, random = matrices(2), np.random.default_rng(seed)
    costs = {
        path: {bits: 10 ** random.uniform(-6, 0) * 4.0**-bits for bits in MIXED_BITS}
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
        path: {bits: math.prod(matrix.shape) * 4.0**-bits for bits in MIXED_BITS}
        for path, matrix in known.items()
    }
    assert {
        form.bits for form in choose_forms(known, costs, average_bits=4.5, group_size=64).values()
    } == {4}
    costs["lm_head"] = {bits: 1000 * cost for bits, cost in costs["lm_head"].items()}
    forms = choose_forms(known, costs, average_bits=4.5, group_size=64)
    assert forms["lm_head"].bits > 5
    assert max(form.bits for path, form in forms.items() if path != "lm_head") <= 4


@pytest.fixture
def mixed(tmp_path):
    """The settings of a mixed recipe that is measured on a short text: one sequence."""
    (tmp_path / "text").write_text(TEXT[:1000])
    return {"recipe": "mixed", "calibration": tmp_path / "text"}


def test_a_mixed_folder_opens_in_mlx_lm_and_has_the_size(tmp_path, mixed):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float16)
    steps = []
    mixed |= {"average_bits": 5.0}
    report = convert(source, tmp_path / "made", **mixed, progress=steps.append)
    again = convert(source, tmp_path / "again", **mixed)
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
    assert np.isfinite(logits_by_mlx_lm(tmp_path / "made")).all()
    with edgellm.load(tmp_path / "made", memory="500MB") as llm:
        assert len(llm.generate("The little dog", max_tokens=8).text) >= 0
    measuring = [step for step in steps if step.file.startswith("measuring")]
    assert measuring
    assert measuring[-1].bytes_done == measuring[-1].bytes_total


def test_settings_that_make_no_sense_are_refused(tmp_path, mixed):
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
        convert(bad, tmp_path / "made", **mixed)


def test_the_text_that_comes_along_fills_its_sequences():
    folder = locate("stories")
    files = {file.name: file for file in folder.iterdir() if "token" in file.name}
    sequences = calibration_tokens(files, None, vocabulary=1 << 20)
    assert [len(sequence) for sequence in sequences] == [256, 256]
    assert len(TEXT.split()) > 400


def test_a_quantized_source_is_measured_as_what_it_stands_for(tmp_path, mixed):
    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "eight", bits=8, group_size=32)
    found = []
    for path in (source, tmp_path / "eight"):
        opened, recipe = open_model(path)
        found.append(measure(opened, recipe, TOKENS.tolist(), group_size=64, progress=ignore))
    assert found[0][1] == pytest.approx(found[1][1], rel=0.02)
    for path, costs in found[0][0].items():
        assert costs[2] == pytest.approx(found[1][0][path][2], rel=0.3)
    report = convert(tmp_path / "eight", tmp_path / "made", **mixed, average_bits=4.5)
    assert all(form is None or form.group_size == 64 for form in report.exceptions.values())
    assert isinstance(report.quantization, Quantization)
    assert report.errors
