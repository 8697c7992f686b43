#!/bin/sh
# mlx-lm 0.32.2 with mlx 0.32.4 (PyPI): the window of a Mistral is passed over, without a word.
#
# One would expect: "sliding_window" of a config of model_type "mistral" (4096 in Mistral 7B v0.1)
# is the number of tokens that every layer looks back over, as in transformers and vLLM.
#
# What happens: mlx-lm runs a mistral as its llama, which applies "sliding_window" only in layers
# that "layer_types" lists as "sliding_attention". A mistral's config has no such list, so all of
# its layers attend to all tokens: texts longer than the window get other logits than elsewhere.
#
# Output seen (x86-64, Python 3.11):
#   mlx-lm 0.32.2: 60 tokens with a window of 9 and with none: logits differ by 0
#   layers with a window: 0 of 2
#
# For users: keep texts of such a model within its window.
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

WINDOW = 9
CONFIG = {
    "model_type": "mistral", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256, "tie_word_embeddings": False, "rope_theta": 10000.0,
}
random = np.random.RandomState(0)


def matrix(rows, columns):
    return mx.array((random.standard_normal((rows, columns)) / columns**0.5).astype(np.float32))


weights = {"model.embed_tokens.weight": 8 * matrix(100, 64), "lm_head.weight": matrix(100, 64)}
weights["model.norm.weight"] = mx.ones(64)
for layer in range(2):
    prefix = f"model.layers.{layer}."
    for name in "qkvo":
        weights[f"{prefix}self_attn.{name}_proj.weight"] = 2 * matrix(64, 64)
    for name, shape in {"gate": (128, 64), "up": (128, 64), "down": (64, 128)}.items():
        weights[f"{prefix}mlp.{name}_proj.weight"] = matrix(*shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights[f"{prefix}{name}.weight"] = mx.ones(64)
tokens = mx.array([np.random.RandomState(1).randint(0, 100, 60).tolist()])
logits, layers = [], []
for window in (WINDOW, None):
    path = pathlib.Path(f"window-{window}")
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | {"sliding_window": window}))
    mx.save_safetensors(str(path / "model.safetensors"), weights, {"format": "pt"})
    model, _ = load_model(path)
    logits.append(np.array(model(tokens)[0]))
    layers.append([layer.use_sliding for layer in model.layers])
difference = np.abs(logits[0] - logits[1]).max()
print(f"mlx-lm 0.32.2: 60 tokens with a window of {WINDOW} and with none: "
      f"logits differ by {difference:g}")
print(f"layers with a window: {sum(layers[0])} of {len(layers[0])}")
assert difference == 0 and not any(layers[0]), "mlx-lm applies a mistral's window now"
PYTHON
