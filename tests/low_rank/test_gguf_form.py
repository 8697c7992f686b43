"""Adapters for llama.cpp: read by the gguf package, and against merged models in GGUF."""

import gguf
import numpy as np
import pytest
from support.adapters import LLAMA
from support.lora_files import ALL, UNEVEN, dora_adapter, peft_adapter
from support.tiny import CONFIGS, write_model

from edgellm.converters import convert, export
from edgellm.errors import ConfigError, ConversionError, FormatError, UnsupportedModelError
from edgellm.low_rank.conversion import convert_adapter


def tensors_of(path):
    reader = gguf.GGUFReader(path)
    return reader, {tensor.name: tensor.data for tensor in reader.tensors}


@pytest.mark.parametrize("family", ["llama-2", "qwen2"])
def test_what_llama_cpp_adds_is_what_merging_changes(tmp_path, family):
    """The order of rows is that of the exported model, whichever it is."""
    base = write_model(tmp_path / "base", CONFIGS[family])
    adapter = peft_adapter(
        tmp_path / "adapter",
        [p for p in ALL if "mlp" in p or "q_" in p or (family == "llama-2" and "k_" in p)],
        **UNEVEN,
    )
    convert(base, tmp_path / "plain", bits=16, dtype="float32")
    convert(base, tmp_path / "merged", bits=16, dtype="float32", adapter=adapter)
    for name in ("plain", "merged"):
        export(tmp_path / name, tmp_path / f"{name}.gguf")
    convert_adapter(adapter, tmp_path / "adapter.gguf", form="gguf", base=str(base))
    reader, parts = tensors_of(tmp_path / "adapter.gguf")
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.type"] == "adapter"
    assert said["adapter.type"] == "lora"
    _, plain = tensors_of(tmp_path / "plain.gguf")
    architecture = gguf.GGUFReader(tmp_path / "plain.gguf").fields["general.architecture"]
    assert said["general.architecture"] == architecture.contents()
    _, merged = tensors_of(tmp_path / "merged.gguf")
    names = {name.removesuffix(".lora_a") for name in parts if name.endswith(".lora_a")}
    assert len(names) == len(parts) / 2
    for name in plain:
        change = merged[name].astype(np.float64) - plain[name]
        if name not in names:
            assert not change.any(), name
            continue
        a, b = parts[f"{name}.lora_a"], parts[f"{name}.lora_b"]
        # as llama.cpp computes it, with the rank of each change
        added = said["adapter.lora.alpha"] / a.shape[0] * (b.astype(np.float64) @ a)
        assert np.abs(added - change).max() < 1e-5, name


def test_what_llama_cpp_does_not_add_is_refused(tmp_path):
    base = write_model(tmp_path / "base", LLAMA)
    out = tmp_path / "out.gguf"
    with pytest.raises(UnsupportedModelError, match="is a DoRA's"):
        convert_adapter(dora_adapter(tmp_path / "dora"), out, form="gguf", base=str(base))
    head = peft_adapter(tmp_path / "head", ["lm_head"])
    with pytest.raises(UnsupportedModelError, match="embedding or the head"):
        convert_adapter(head, out, form="gguf", base=str(base))
    other = write_model(tmp_path / "other", LLAMA | {"intermediate_size": 160})
    adapter = peft_adapter(tmp_path / "adapter")
    with pytest.raises(FormatError, match="other has"):
        convert_adapter(adapter, out, form="gguf", base=str(other))
    with pytest.raises(ConfigError, match="is not here"):
        convert_adapter(adapter, out, form="gguf")
    assert not out.exists()
    convert_adapter(adapter, out, form="gguf", base=str(base))
    with pytest.raises(ConversionError, match="already exists"):
        convert_adapter(adapter, out, form="gguf", base=str(base))
    convert_adapter(adapter, out, form="gguf", base=str(base), force=True)
    out.write_text("mine")
    with pytest.raises(ConversionError, match="not a GGUF file, and will not be replaced"):
        convert_adapter(adapter, out, form="gguf", base=str(base), force=True)
    assert out.read_text() == "mine"
