"""Numbers of a source that are kept to the last bit where float32 is asked for."""

import json

import mlx.core as mx
import numpy as np
import pytest
from support.gguf_files import WIDE, arrays, dequantized, write_gguf
from support.tiny import CONFIGS, random_tensors, write_model

from edgellm.converters import convert

MULTIPLIERS = {
    "model_type": "granite",
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.22,
    "logits_scaling": 7.0,
}


def test_multipliers_go_into_float32_unrounded(tmp_path):
    source = write_model(tmp_path / "granite", CONFIGS["llama-2"], dtype=mx.bfloat16)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | MULTIPLIERS))
    tensors = mx.load(str(source / "model.safetensors"))
    made = arrays(convert(source, tmp_path / "made", bits=16, dtype="float32").path)
    name = "model.layers.1.mlp.down_proj.weight"
    exact = np.array(tensors[name].astype(mx.float32)) * np.float32(0.22)
    assert (made[name] == exact).all()
    usual = arrays(convert(source, tmp_path / "usual", bits=16).path)
    rounded = np.array(mx.array(exact).astype(mx.bfloat16).astype(mx.float32))
    assert (usual[name] == rounded).all()


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K", "IQ4_XS"])
def test_a_quantized_gguf_file_goes_into_float32_unrounded(tmp_path, kind):
    stored = write_gguf(tmp_path / "model.gguf", WIDE, kinds=lambda name: kind)
    made = arrays(
        convert(tmp_path / "model.gguf", tmp_path / "made", bits=16, dtype="float32").path
    )
    for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
        assert (made[name] == dequantized(*stored[name])).all()
    assert not (made["model.norm.weight"] == made["model.norm.weight"].astype(np.float16)).all()
    usual = convert(tmp_path / "model.gguf", tmp_path / "usual").path
    norm = mx.load(str(next(usual.glob("*head*"))))["model.norm.weight"]
    assert norm.dtype == mx.float16
    assert (np.array(norm) == random_tensors(WIDE)["model.norm.weight"].astype(np.float16)).all()
