#!/bin/sh
# transformers 5.24.0 (PyPI): an OLMo 3 whose config.json has a rope_theta in the old form is given
# it in one layer of four; the others turn by another base, without a word.
#
# One would expect: "rope_theta" is the base of all layers. The layers with a window differ only in
# that yarn ("rope_scaling") is not for them. transformers 4.57 computes so, and mlx-lm 0.32.2 does.
#
# What happens: Olmo3Config.convert_rope_params_to_dict takes "rope_theta" out of the keywords for
# the full layers (kwargs.pop), so that for the layers with a window it finds none and takes the
# default, 500000. The published OLMo 3 have just that base; a model trained with another one loads,
# and three of four of its layers compute something else.
#
# Output seen (x86-64, Python 3.11):
#   transformers 5.24.0: rope_theta 20000 -> full_attention 20000, sliding_attention 500000
#
# For users: write the settings in the new form, "rope_parameters" with one object for
# "full_attention" and one for "sliding_attention".
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0
cd "$folder"
cat > config.json <<'JSON'
{
  "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "hidden_size": 64,
  "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 100,
  "max_position_embeddings": 256, "sliding_window": 16, "rope_theta": 20000.0, "pad_token_id": 0,
  "eos_token_id": 1
}
JSON
venv/bin/python - <<'PYTHON'
import transformers
from transformers import AutoConfig

config = AutoConfig.from_pretrained(".")
bases = {kind: settings["rope_theta"] for kind, settings in config.rope_parameters.items()}
shown = ", ".join(f"{kind} {base:g}" for kind, base in sorted(bases.items()))
print(f"transformers {transformers.__version__}: rope_theta 20000 -> {shown}")
assert bases == {"full_attention": 20000.0, "sliding_attention": 500000.0}, "all layers have it now"
PYTHON
