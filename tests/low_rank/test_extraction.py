"""A full change as an adapter: against the change itself, NumPy, PEFT."""

import numpy as np
import pytest
from support.adapters import LLAMA
from support.lora_files import ALL, SOME, config_of, peft_adapter, products, tuned_model
from support.paged import logits_of
from support.tiny import random_tensors, write_model

from edgellm import load
from edgellm.converters import convert
from edgellm.errors import ConfigError, ConversionError, FormatError, UnsupportedModelError
from edgellm.low_rank.extraction import extract

PROMPT = [3, 1, 4, 1, 5, 92, 65, 35, 89, 79]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model in float32, one that differs by an adapter of rank 4, and one by full changes."""
    folder = tmp_path_factory.mktemp("models")
    base = write_model(folder / "base", LLAMA)
    adapter = peft_adapter(folder / "adapter")
    tuned_model(base, folder / "tuned", products(adapter))
    draws, weights = np.random.default_rng(1), random_tensors(LLAMA)
    full = {path: draws.standard_normal(weights[f"{path}.weight"].shape) / 50 for path in ALL[:9]}
    norm = {"model.norm.weight": np.full(64, 0.25)}
    tuned_model(base, folder / "full", full, norm)
    return folder, full


def test_a_change_that_was_an_adapter_becomes_it_again(models, tmp_path):
    folder, _ = models
    made = extract(folder / "tuned", folder / "base", tmp_path / "out", rank=8)
    expected, found = products(folder / "adapter"), products(tmp_path / "out")
    assert found.keys() == expected.keys()
    for path, change in expected.items():
        assert np.abs(found[path] - change).max() < 2e-6
    assert made.error < 1e-5
    assert made.unchanged == len(ALL) - len(SOME)
    assert {item.rank for item in made.matrices} <= {4, 5, 6, 7, 8}
    assert made.left_out == []
    assert config_of(tmp_path / "out")["base_model_name_or_path"] == str(folder / "base")


def test_the_error_told_is_that_of_the_nearest_change(models, tmp_path):
    folder, full = models
    made = extract(folder / "full", folder / "base", tmp_path / "out", rank=5, partial=True)
    assert made.left_out == ["model.norm.weight"]
    found = products(tmp_path / "out")
    for item in made.matrices:
        change = full[item.path]
        values = np.linalg.svd(change, compute_uv=False)
        least = np.sqrt((values[5:] ** 2).sum() / (values**2).sum())
        assert item.error == pytest.approx(least, abs=1e-5)
        left_out = np.linalg.norm(change - found[item.path]) / np.linalg.norm(change)
        assert item.error == pytest.approx(left_out, abs=1e-5)
    whole = np.sqrt(sum(np.linalg.norm(change) ** 2 for change in full.values()))
    left = np.sqrt(sum(np.linalg.norm(full[p] - found[p]) ** 2 for p in full))
    assert made.error == pytest.approx(left / whole, abs=1e-5)


def test_an_energy_keeps_as_much_of_each_change(models, tmp_path):
    folder, full = models
    made = extract(folder / "full", folder / "base", tmp_path / "out", energy=0.8, partial=True)
    for item in made.matrices:
        shares = np.cumsum(np.linalg.svd(full[item.path], compute_uv=False) ** 2)
        assert item.rank == int(np.argmax(shares >= 0.8 * shares[-1])) + 1
        assert 1 - item.error**2 >= 0.8 - 1e-6
    assert config_of(tmp_path / "out")["rank_pattern"]


def test_what_no_adapter_holds_is_refused_by_name(models, tmp_path):
    folder, _ = models
    with pytest.raises(UnsupportedModelError, match=r"in 'model\.norm\.weight', which no adapter"):
        extract(folder / "full", folder / "base", tmp_path / "out")
    rows = {"model.embed_tokens.weight": np.pad([[0.5]], ((7, 312), (3, 60)))}
    tuned_model(folder / "base", tmp_path / "rows", {SOME[0]: 0.1}, rows)
    with pytest.raises(UnsupportedModelError, match=r"in 'model\.embed_tokens'"):
        extract(tmp_path / "rows", folder / "base", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_that_are_not_one_before_and_after_are_refused(models, tmp_path):
    folder, _ = models
    other = write_model(tmp_path / "other", LLAMA | {"intermediate_size": 160})
    with pytest.raises(FormatError, match="not one model before and after"):
        extract(folder / "tuned", other, tmp_path / "out")
    with pytest.raises(UnsupportedModelError, match="no matrix of a layer differs"):
        extract(folder / "base", folder / "base", tmp_path / "out")
    with pytest.raises(ConfigError, match="the energy is 90"):
        extract(folder / "tuned", folder / "base", tmp_path / "out", energy=90)
    with pytest.raises(ConversionError, match="already exists"):
        extract(folder / "tuned", folder / "base", folder / "adapter")


def test_an_adapter_of_a_quantized_base_makes_it_the_tuned_model(models, tmp_path):
    """With all of its rank the change holds the rounding errors of the base, too."""
    folder, _ = models
    convert(folder / "base", tmp_path / "4", bits=4, group_size=32)
    tuned = tmp_path / "tuned"
    convert(folder / "tuned", tuned, bits=16)
    made = extract(tuned, tmp_path / "4", tmp_path / "out", rank=64, partial=True)
    assert made.unchanged == 0
    assert any("quantized" in note for note in made.notes)
    assert "model.embed_tokens" in made.left_out
    convert(tmp_path / "4", tmp_path / "merged", bits=16, adapter=tmp_path / "out")
    from support.folders import tensors_of

    expected, found = tensors_of(tuned), tensors_of(tmp_path / "merged")
    for path in ALL:
        name = f"{path}.weight"
        assert np.abs(np.array(expected[name]) - np.array(found[name])).max() < 1e-5


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_pefts_model_with_an_extracted_adapter_is_the_tuned_one(models, tmp_path):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    folder, _ = models
    extract(folder / "tuned", folder / "base", tmp_path / "out", rank=8)
    tokens = torch.tensor([PROMPT])

    def plain(name):
        return AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)

    opened = peft.PeftModel.from_pretrained(plain("base"), tmp_path / "out")
    with torch.no_grad():
        expected = plain("tuned")(tokens).logits[0].numpy()
        assert np.abs(opened(tokens).logits[0].numpy() - expected).max() < 1e-4
    with load(folder / "base", adapter=tmp_path / "out", backend="mlx", kv_bits=32) as llm:
        assert np.abs(logits_of(llm, PROMPT) - expected).max() < 1e-4


def test_families_whose_rows_lie_otherwise_get_their_own_order_and_factor(tmp_path):
    """Granite multiplies inside; the change is one of the stored matrix, as PEFT has it."""
    config = LLAMA | {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.5,
        "embedding_multiplier": 2.0,
        "logits_scaling": 1.0,
    }
    base = write_model(tmp_path / "base", config)
    change = np.outer(np.arange(64) / 640, np.linspace(-1, 1, 64))
    paths = ["model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.o_proj"]
    tuned_model(base, tmp_path / "tuned", dict.fromkeys(paths, change))
    extract(tmp_path / "tuned", base, tmp_path / "out", rank=2)
    found = products(tmp_path / "out")
    for path in paths:
        assert np.abs(found[path] - change).max() < 1e-6
    convert(base, tmp_path / "merged", bits=16, adapter=tmp_path / "out")
    convert(tmp_path / "tuned", tmp_path / "expected", bits=16)
    from support.folders import tensors_of

    expected, merged = tensors_of(tmp_path / "expected"), tensors_of(tmp_path / "merged")
    for name, values in expected.items():
        assert np.abs(np.array(values) - np.array(merged[name])).max() < 1e-5
