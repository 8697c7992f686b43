"""Spectra of models, full changes and adapters: against NumPy's SVD of the matrices."""

import numpy as np
import pytest
from support.adapters import LLAMA
from support.lora_files import SOME, peft_adapter, products, tuned_model
from support.tiny import random_tensors, write_model

from edgellm.adapters.stored import open_stored
from edgellm.converters import convert
from edgellm.errors import ConfigError, FormatError, UnsupportedModelError
from edgellm.low_rank.description import describe
from edgellm.low_rank.spectra import read_spectra


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "base", LLAMA)
    peft_adapter(folder / "adapter")
    tuned_model(folder / "base", folder / "tuned", products(folder / "adapter"))
    return folder


def values_of(matrix):
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def test_a_models_matrix_has_numpys_singular_values(folder, tmp_path):
    weights = random_tensors(LLAMA)
    found = read_spectra(str(folder / "base"), ["2.mlp.up_proj"])
    [(path, (shape, spectrum))] = found.found.items()
    assert path == "model.layers.2.mlp.up_proj"
    assert shape == (128, 64)
    expected = values_of(weights[f"{path}.weight"].astype(np.float32))
    assert np.allclose(spectrum.values, expected, rtol=1e-6)
    convert(folder / "base", tmp_path / "4", bits=4, group_size=32)
    [(_, quantized)] = read_spectra(str(tmp_path / "4"), ["2.mlp.up_proj"]).found.values()
    assert np.allclose(quantized.values, expected, rtol=0.05)


def test_a_full_change_and_its_adapter_have_the_same_spectra(folder):
    change = read_spectra(str(folder / "tuned"), ["*.q_proj"], base=str(folder / "base"))
    adapter = read_spectra(str(folder / "adapter"), ["q_proj"])
    assert change.found.keys() == adapter.found.keys()
    assert len(adapter.found) == 4
    for path, (_, spectrum) in adapter.found.items():
        expected = values_of(products(folder / "adapter")[path])
        assert np.allclose(spectrum.values[:4], expected[:4], rtol=1e-5)
        assert np.allclose(change.found[path][1].values[:4], expected[:4], rtol=1e-5)
    assert [adapter.rank_for(share) for share in (0.9, 0.95, 0.99)] == [
        change.rank_for(share) for share in (0.9, 0.95, 0.99)
    ]


def test_the_error_of_all_together_is_that_of_their_sum_of_squares(folder):
    spectra = read_spectra(str(folder / "adapter"), [])
    assert list(spectra.found) == SOME
    changes = [values_of(change) for change in products(folder / "adapter").values()]
    whole = sum((values**2).sum() for values in changes)
    for rank, error in enumerate(spectra.errors()):
        left = sum((values[rank:] ** 2).sum() for values in changes)
        assert error == pytest.approx(np.sqrt(left / whole), abs=1e-6)


def test_names_that_nothing_has_and_questions_without_an_answer_are_refused(folder):
    with pytest.raises(FormatError, match="no matrix 'q_poj'") as raised:
        read_spectra(str(folder / "adapter"), ["q_poj"])
    assert "model.layers.0" in raised.value.hint
    with pytest.raises(ConfigError, match="no matrix is named"):
        read_spectra(str(folder / "base"), [])
    with pytest.raises(UnsupportedModelError, match="all numbers are zero"):
        read_spectra(str(folder / "base"), ["q_proj"], base=str(folder / "base"))
    with pytest.raises(ConfigError, match="need no base"):
        read_spectra(str(folder / "adapter"), [], base=str(folder / "base"))


def test_an_adapter_is_described_in_figures(folder):
    facts = describe(open_stored(folder / "adapter")).facts()
    assert facts["format"] == "peft"
    assert facts["kind"] == "LoRA"
    assert (facts["ranks"], facts["scales"], facts["layers"]) == ([4], [4.0], [0, 1, 2, 3])
    assert facts["targets"] == ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]
    changes = products(folder / "adapter")
    assert facts["norm"] == pytest.approx(
        np.sqrt(sum(np.linalg.norm(change) ** 2 for change in changes.values())), rel=1e-6
    )
    assert facts["numbers"] == sum(4 * sum(change.shape) for change in changes.values())
    for item in facts["changes"]:
        change = changes[item["matrix"]]
        assert item["norm"] == pytest.approx(np.linalg.norm(change), rel=1e-6)
        values = values_of(change)[:4]
        shares = values / values.sum()
        assert item["effective_rank"] == pytest.approx(
            np.exp(-(shares * np.log(shares)).sum()), rel=1e-6
        )
