#!/bin/sh
# mlx-lm 0.32.2 (PyPI): Gemma 2's layers with a sliding window look back over the whole text.
#
# One would expect: every other layer of a gemma2, the first among them, attends to the last
# sliding_window tokens alone (4096 in the published configs, and in transformers' and llama.cpp's
# arithmetic). In a model of one layer, a token further back cannot change the last logits.
#
# What happens: gemma2.py never reads sliding_window; gemma3_text.py beside it does. In texts longer
# than the window the logits are another model's, without a word.
#
# Output seen (x86-64, Python 3.11):
#   a token 20 places back, in a window of 4, changes the last logits by 0.8
#
# For users: nothing to do in texts of up to 4096 tokens; longer ones are better run elsewhere.
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
import mlx.utils
from mlx_lm.utils import load_model, _get_classes

CONFIG = {
    "model_type": "gemma2", "hidden_size": 32, "intermediate_size": 32, "vocab_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4, "query_pre_attn_scalar": 16,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
}
model_class, arguments = _get_classes(CONFIG)
mx.random.seed(0)
shapes = mlx.utils.tree_flatten(model_class(arguments.from_dict(CONFIG)).parameters())
mx.save_safetensors(
    "model.safetensors", {name: mx.random.normal(one.shape) for name, one in shapes}
)
with open("config.json", "w") as file:
    json.dump(CONFIG, file)

model, _ = load_model(pathlib.Path("."))
text = list(range(10, 34))
other = [text[0], text[1], text[2], 50, *text[4:]]
last, changed = (model(mx.array([ids]))[0, -1] for ids in (text, other))
change = mx.abs(last - changed).max().item()
print(f"a token 20 places back, in a window of 4, changes the last logits by {change:.1f}")
assert change > 0.01
PYTHON
