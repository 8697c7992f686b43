#!/bin/sh
# mlx-lm 0.32.2 with mlx 0.32.4 (PyPI): a Llama that transformers 5 saved is loaded with another
# rotary base, without a word.
#
# One would expect: transformers 5 writes the rotary settings as "rope_parameters" and nothing else;
# a reader of its folders takes the base ("rope_theta") from there, or refuses the folder.
#
# What happens: mlx_lm.models.llama knows "rope_theta" and "rope_scaling" alone, passes over
# "rope_parameters", and takes its own default of 10000 and no scaling. The model loads and
# talks. Some of its other families (ministral3, say) read the new form.
#
# Output seen (x86-64, Python 3.11):
#   mlx-lm 0.32.2: rope_theta 500000 -> 10000 with rope_parameters, 500000 in the old form
#   logits of the same weights differ by 5.57 (largest 4.13)
#
# For users: give load the settings, mlx_lm.load(path, model_config={"rope_theta": 500000.0}), or
# write them into config.json in the old form.
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

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096, "tie_word_embeddings": False,
}
FORMS = {
    "new": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "old": {"rope_theta": 500000.0},
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

logits, bases = {}, {}
for form, settings in FORMS.items():
    path = pathlib.Path(form)
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | settings))
    mx.save_safetensors(str(path / "model.safetensors"), weights, {"format": "pt"})
    model, _ = load_model(path)
    bases[form] = model.args.rope_theta
    tokens = mx.array([np.random.RandomState(1).randint(0, 100, 300).tolist()])
    logits[form] = np.array(model(tokens)[0])
difference = np.abs(logits["new"] - logits["old"]).max()
print(f"mlx-lm 0.32.2: rope_theta 500000 -> {bases['new']:g} with rope_parameters, "
      f"{bases['old']:g} in the old form")
print(f"logits of the same weights differ by {difference:.2f} (largest {np.abs(logits['old']).max():.2f})")
assert bases == {"new": 10000, "old": 500000}, "mlx-lm reads the new form now"
assert difference > 0.1, "the base makes no difference"
PYTHON
