"""The memory that a layer of a 7B model takes on its way in and out."""

from dataclasses import replace

import pytest
from support.gguf_files import gguf_name
from support.peak_memory import PEAK
from support.processes import python
from support.tiny import CONFIGS, tensor_shapes, write_model

from edgellm.converters import export
from edgellm.converters.gguf.header import open_gguf
from edgellm.converters.gguf_export.writer import GgufOutput, write_gguf

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
CONFIG = CONFIGS["llama-2"] | SHAPE | {"num_hidden_layers": 1}


def zeros(nbytes):
    """Pieces of nothing."""

    def pieces():
        for start in range(0, nbytes, 1 << 20):
            yield bytes(min(1 << 20, nbytes - start))

    return pieces


@pytest.fixture(params=["Q4_0", pytest.param("Q6_K", marks=pytest.mark.slow)])
def layer(tmp_path, request):
    """A GGUF file of one layer, its metadata those of a small model."""
    small = write_model(tmp_path / "small", CONFIGS["llama-2"])
    export(small, tmp_path / "small.gguf")
    metadata = dict(open_gguf(tmp_path / "small.gguf").metadata)
    names = {
        "embedding_length": 4096,
        "feed_forward_length": 11008,
        "block_count": 1,
        "attention.head_count": 32,
    }
    names |= {
        "attention.head_count_kv": 32,
        "attention.key_length": 128,
        "attention.value_length": 128,
    }
    metadata |= {
        f"llama.{key}": value for key, value in (names | {"rope.dimension_count": 128}).items()
    }
    outputs = []
    for name, shape in tensor_shapes(CONFIG).items():
        output = GgufOutput(
            gguf_name(name), request.param if len(shape) == 2 else "F32", shape, tuple
        )
        outputs.append(replace(output, pieces=zeros(output.nbytes)))
    write_gguf(tmp_path / "layer.gguf", metadata, outputs, replace=False)
    return tmp_path / "layer.gguf"


def test_a_layer_in_and_out_peaks_below_two_of_them_and_300_mb(tmp_path, layer):
    peak = int(python(PEAK.replace(", report=True", ""), layer, tmp_path / "made"))
    size = (tmp_path / "made" / "model-layer-00000.safetensors").stat().st_size
    assert size > 120e6
    assert peak < 2 * size + 300e6
    code = PEAK.replace("import convert", "import export as convert").replace(", report=True", "")
    assert int(python(code, tmp_path / "made", tmp_path / "out.gguf")) < 2 * size + 300e6
    assert (tmp_path / "out.gguf").stat().st_size > 120e6
