"""Some layers of a model in a folder of their own."""

import pytest

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.folder import open_folder
from edgellm.distributed.supply.written_part import parse_layers, write_part
from edgellm.errors import ConfigError, ConversionError, FormatError


def test_layers_as_they_are_written():
    assert parse_layers("1-3", 8) == [1, 2, 3]
    assert parse_layers("7, 0-1,1", 8) == [0, 1, 7]
    assert parse_layers("all", 2) == [0, 1, 2]  # with what is outside them
    for wrong in ("", "8", "3-2", "1-8", "x", "-1", "1-", "0-9999999", "²"):
        with pytest.raises(ConfigError) as raised:
            parse_layers(wrong, 8)
        assert "0 to 7" in raised.value.hint


def test_a_folder_is_added_to_and_is_no_model(tiny_folder, tmp_path):
    model, folder, steps = read_checkpoint(tiny_folder("llama-3.2")), tmp_path / "part", []
    write_part(model, folder, [1])
    first = folder / "model-layer-00001.safetensors"
    written = first.stat().st_mtime_ns, first.read_bytes()
    assert write_part(model, folder, [0, 1], lambda *step: steps.append(step)) == sum(
        file.stat().st_size for file in folder.glob("model*")
    )
    assert (first.stat().st_mtime_ns, first.read_bytes()) == written
    assert [name for name, _, _ in steps] == ["model-layer-00000.safetensors"]
    with pytest.raises(FormatError, match="has a part") as raised:
        open_folder(folder)
    assert "cluster join" in raised.value.hint
    with pytest.raises(ConversionError, match="another model"):
        write_part(read_checkpoint(tiny_folder("qwen3")), folder, [0])
    with pytest.raises(ConversionError, match="in the way"):
        write_part(model, model.folder.path, [0])
