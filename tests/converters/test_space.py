"""What a conversion takes of the machine: memory for a few rows, and a disk that has room."""

import pytest
from support.peak_memory import PEAK, sparse_model
from support.processes import python
from support.tiny import CONFIGS

from edgellm.checkpoint.safetensors_file import TensorData, write_tensors
from edgellm.converters import convert
from edgellm.errors import ConversionError


def test_a_model_that_will_not_fit_the_disk_is_refused_at_once(tmp_path):
    huge = CONFIGS["llama-2"] | {
        "hidden_size": 1 << 17,
        "intermediate_size": 1 << 19,
        "num_hidden_layers": 10,
        "head_dim": 4096,
    }
    source = sparse_model(tmp_path / "source", huge)
    with pytest.raises(
        ConversionError, match=r"needs \S+ [GT]B, which is \S+ [GT]B more than the disk has free"
    ):
        convert(source, tmp_path / "made", bits=16)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_large_layers_peak_below_two_of_them_and_300_mb(tmp_path):
    shape = {
        "hidden_size": 4096,
        "intermediate_size": 5632,
        "num_attention_heads": 32,
        "num_hidden_layers": 1,
    }
    source = sparse_model(tmp_path / "source", CONFIGS["llama-1"] | shape)
    peak = int(python(PEAK, source, tmp_path / "made"))
    layer = (tmp_path / "made" / "model-layer-00000.safetensors").stat().st_size
    assert layer > 70e6
    assert peak < 2 * layer + 300e6


def test_the_writer_takes_no_more_memory_than_a_piece(tmp_path):
    """A tensor of 400 MB, in pieces of 1 MB."""
    code = PEAK.replace("from edgellm.converters import convert\n", "").replace(
        "report = convert(sys.argv[1], sys.argv[2], report=True)\n",
        "from pathlib import Path\n"
        "from edgellm.checkpoint.safetensors_file import TensorData, write_tensors\n"
        "pieces = (bytes(1 << 20) for _ in range(400))\n"
        "write_tensors(Path(sys.argv[1]), [TensorData('a', 'U8', (400 << 20,), pieces)])\n",
    )
    assert int(python(code, tmp_path / "x.safetensors")) < 150e6
    assert (tmp_path / "x.safetensors").stat().st_size == (400 << 20) + 16384


def test_a_tensor_without_values_is_written(tmp_path):
    write_tensors(tmp_path / "x.safetensors", [TensorData("a", "U8", (0,), b"")])
    assert (tmp_path / "x.safetensors").stat().st_size == 16384
