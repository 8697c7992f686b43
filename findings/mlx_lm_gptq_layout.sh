#!/bin/sh
# mlx-lm 0.32.2 (PyPI): reads GPTQ's matrices in AWQ's layout, so that no GPTQ folder opens.
#
# One would expect: its loader reads "gptq" beside "awq" and refuses g_idx with the advice to use a
# model without it, so a folder without g_idx should open, as scale * (code - zero).
#
# What happens: GPTQ packs eight inputs a word, qweight (inputs / 8, outputs), AWQ eight outputs,
# qweight (inputs, outputs / 8), and interleaves them. Both go through the same function, which
# takes every qweight for AWQ's: a matrix of 256 by 256 becomes one of 2048 by 32, with 0 bits. The
# zero points, which GPTQ's first version stores less one, are taken as they are, too.
#
# Output seen (x86-64, Python 3.11):
#   awq: opened, off by 0.000122 of 0.216
#   gptq with g_idx: ValueError: ... (g_idx) are not currently supported. Please use a model without
#   gptq without g_idx: ValueError: [quantize] The requested number of bits 0 is not supported.
#
# For users: convert a GPTQ folder with a tool that knows its layout before mlx-lm opens it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
cd "$folder"
venv/bin/python - <<'PYTHON'
import json
import pathlib
import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

HIDDEN, GROUP, AWQ_ORDER = 256, 128, (0, 2, 4, 6, 1, 3, 5, 7)
CONFIG = {
    "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "vocab_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_theta": 10000.0,
}
random = np.random.RandomState(0)
codes = random.randint(0, 16, (HIDDEN, HIDDEN))  # inputs, outputs
zeros = random.randint(1, 16, (HIDDEN // GROUP, HIDDEN))
scales = mx.array(random.uniform(0.005, 0.015, zeros.shape).astype(np.float16))


def words(values, places):
    eights = values.reshape(len(values), -1, 8) << (4 * np.argsort(places))
    return mx.array(np.bitwise_or.reduce(eights, axis=-1).astype(np.uint32).view(np.int32))


awq = {"qweight": words(codes, AWQ_ORDER), "qzeros": words(zeros, AWQ_ORDER)}
gptq = {"qweight": mx.contiguous(words(codes.T, range(8)).T), "qzeros": words(zeros - 1, range(8))}
indexed = gptq | {"g_idx": mx.array((np.arange(HIDDEN) // GROUP).astype(np.int32))}


def opened(method, parts):
    path = pathlib.Path(f"{method}-{len(parts)}")
    path.mkdir()
    ones = mx.ones((64, HIDDEN), mx.float16)
    tensors = {"model.norm.weight": ones[0], "model.embed_tokens.weight": ones, "lm_head.weight": ones}
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.0.{name}.weight"] = ones[0]
    for name in [f"self_attn.{a}" for a in "qkvo"] + [f"mlp.{a}" for a in ("gate", "up", "down")]:
        for part, values in (parts | {"scales": scales}).items():
            tensors[f"model.layers.0.{name}_proj.{part}"] = values
    mx.save_safetensors(str(path / "model.safetensors"), tensors)
    block = {"quant_method": method, "bits": 4, "group_size": GROUP, "version": "gemm"}
    (path / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": block}))
    try:
        model, _ = load_model(path)
    except ValueError as error:
        return f"ValueError: {error}"
    made = model.model.layers[0].self_attn.q_proj
    found = mx.dequantize(made.weight, made.scales, made.biases, made.group_size, made.bits)
    wanted = (codes - zeros.repeat(GROUP, 0)) * np.array(scales.astype(mx.float32)).repeat(GROUP, 0)
    error = np.abs(np.array(found.astype(mx.float32)) - wanted.T).max()
    return f"opened, off by {error:.6f} of {np.abs(wanted).max():.3f}"


results = [opened("awq", awq), opened("gptq", indexed), opened("gptq", gptq)]
print("awq: {}\ngptq with g_idx: {}\ngptq without g_idx: {}".format(*results))
assert "off by 0.000" in results[0] and "g_idx" in results[1] and "bits 0" in results[2]
PYTHON
