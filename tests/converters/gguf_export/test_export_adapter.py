"""Models with an adapter in GGUF: against their merged weights."""

import numpy as np
import pytest
from support.adapters import LLAMA, TIED
from support.folders import tensors_of
from support.lora_files import SOME, dora_adapter, peft_adapter
from support.tiny import write_model

from edgellm.converters import convert, export
from edgellm.errors import FormatError


@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize("make", [peft_adapter, dora_adapter])
def test_a_model_with_an_adapter_is_its_merged_weights(tmp_path, bits, make):
    write_model(tmp_path / "base", LLAMA)
    base = tmp_path / "model"
    convert(
        tmp_path / "base", base, bits=bits, group_size=32 if bits == 4 else None, dtype="float16"
    )
    adapter = make(tmp_path / "adapter")
    plain = export(base, tmp_path / "plain.gguf")
    report = export(base, tmp_path / "out.gguf", adapter=adapter)
    assert (plain.merged, plain.change_kept) == (0, None)
    assert report.merged == len(SOME)
    assert report.change_kept == pytest.approx(1, abs=1e-3)
    convert(tmp_path / "out.gguf", tmp_path / "back", bits=16)
    convert(base, tmp_path / "merged", bits=16, adapter=adapter)
    expected, found = tensors_of(tmp_path / "merged"), tensors_of(tmp_path / "back")
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        wide = np.array(values).astype(np.float32)
        assert np.abs(np.array(found[name]).astype(np.float32) - wide).max() <= 2e-3, name
        if name.removesuffix(".weight") in SOME:
            assert np.array_equal(np.array(found[name]), np.array(values)), name


def test_a_head_that_the_adapter_unties_is_stored(tmp_path):
    base = write_model(tmp_path / "base", TIED)
    adapter = peft_adapter(tmp_path / "adapter", ["lm_head"])
    export(base, tmp_path / "out.gguf", adapter=adapter)
    convert(tmp_path / "out.gguf", tmp_path / "back", bits=16)
    assert "lm_head.weight" in tensors_of(tmp_path / "back")


def test_another_models_adapter_leaves_nothing_behind(tmp_path):
    base = write_model(tmp_path / "base", LLAMA | {"intermediate_size": 160})
    adapter = peft_adapter(tmp_path / "adapter")
    with pytest.raises(FormatError, match="the matrix is"):
        export(base, tmp_path / "out.gguf", adapter=adapter)
    assert not (tmp_path / "out.gguf").exists()
