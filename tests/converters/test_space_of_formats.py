"""What a conversion from other formats takes of the machine: as much as from Hugging Face's."""

import json
import struct

import numpy as np
import pytest
from support.adapters import write_peft
from support.llama2c_files import write_tokenizer_bin
from support.meta_files import NAMES, params_of, sparse_shard
from support.peak_memory import PEAK as PEAK_WITH_REPORT
from support.peak_memory import sparse_model
from support.processes import python
from support.tiny import CONFIGS
from support.tiny_tokenizers import piece_model

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_hidden_layers": 1,
    "vocab_size": 448,
}
CONFIG = CONFIGS["llama-1"] | SHAPE
PEAK = PEAK_WITH_REPORT.replace(", report=True", "")
"""Errors are measured where the format is Hugging Face's."""
LAYER = {
    "attention.wq": (4096, 4096),
    "attention.wk": (4096, 4096),
    "attention.wv": (4096, 4096),
    "attention.wo": (4096, 4096),
    "feed_forward.w1": (5632, 4096),
    "feed_forward.w2": (4096, 5632),
    "feed_forward.w3": (5632, 4096),
}


def meta(path, shards):
    path.mkdir()
    shapes = {"norm.weight": (4096,)}
    shapes |= {
        f"layers.0.{name}.weight": (4096,) for name in NAMES.values() if name.endswith("norm")
    }
    for name, (rows, columns) in {
        "tok_embeddings": (448, 4096),
        "output": (448, 4096),
        **LAYER,
    }.items():
        by_columns = name in ("tok_embeddings", "attention.wo", "feed_forward.w2")
        stem = name if "." not in name else f"layers.0.{name}"
        shapes[f"{stem}.weight"] = (
            (rows, columns // shards) if by_columns else (rows // shards, columns)
        )
    for number in range(shards):
        sparse_shard(path / f"consolidated.{number:02d}.pth", shapes)
    (path / "params.json").write_text(
        json.dumps(params_of(CONFIG, multiple_of=256, ffn_dim_multiplier=0.5))
    )
    (path / "tokenizer.model").write_bytes(piece_model())
    return path


def llama2c(path, version):
    path.mkdir()
    write_tokenizer_bin(path / "tokenizer.bin", piece_model())
    weights = sum(rows * columns for rows, columns in LAYER.values()) + 448 * 4096
    with (path / "model.bin").open("wb") as file:
        file.write(
            struct.pack("<Ii7iBi", 0x616B3432, version, 4096, 5632, 1, 32, 32, 448, 256, 1, 64)
        )
        file.truncate(
            256 + 3 * 4096 * 4 + (weights * 4 if version == 1 else weights + weights // 64 * 4)
        )
    return path / "model.bin"


def peak_and_layer(source, made, code=PEAK, *more):
    peak = int(python(code, source, made, *more))
    layer = (made / "model-layer-00000.safetensors").stat().st_size
    assert layer > 70e6
    return peak, layer


@pytest.mark.parametrize("shards", [1, 8])
def test_metas_shards(tmp_path, shards):
    peak, layer = peak_and_layer(meta(tmp_path / "meta", shards), tmp_path / "made")
    assert peak < 2 * layer + 300e6


@pytest.mark.parametrize("version", [1, 2])
def test_llama2c(tmp_path, version):
    peak, layer = peak_and_layer(llama2c(tmp_path / "llama2c", version), tmp_path / "made")
    assert peak < 2 * layer + 300e6


def test_an_adapter(tmp_path):
    source = sparse_model(tmp_path / "source", CONFIG)
    tensors = {}
    # of the largest: merging takes the time that it takes
    for name, key in (("gate", "feed_forward.w1"), ("down", "feed_forward.w2")):
        rows, columns = LAYER[key]
        path = f"model.layers.0.mlp.{name}_proj"
        tensors |= {f"{path}.lora_A.weight": np.ones((16, columns), np.float32) / 64}
        tensors |= {f"{path}.lora_B.weight": np.ones((rows, 16), np.float32) / 64}
    adapter = write_peft(tmp_path / "adapter", tensors)
    code = PEAK.replace("sys.argv[2]", "sys.argv[2], adapter=sys.argv[3]")
    peak, layer = peak_and_layer(source, tmp_path / "made", code, adapter)
    assert peak < 2 * layer + 300e6
