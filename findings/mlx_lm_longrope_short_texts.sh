#!/bin/sh
# mlx-lm 0.32.2 (PyPI): longrope's factors for long texts are used in short ones, too.
#
# One would expect: in texts up to original_max_position_embeddings a phi3 with longrope (Phi-3's
# 128k models, Phi-4-mini) turns its queries and keys by short_factor, and only in longer ones by
# long_factor, as transformers and llama.cpp do.
#
# What happens: rope_utils.SuScaledRoPE takes short_factor and never looks at it. A text of eight
# tokens gets the same logits whatever short_factor says, and others when long_factor changes. In
# Phi-4-mini, where short_factor is 1 throughout, slow pairs turn 48 times more slowly than they
# should in every chat of up to 4096 tokens.
#
# Output seen (x86-64, Python 3.11):
#   short_factor 1 -> 8: logits change by 0.000; long_factor 1 -> 8: by 23.6
#
# For users: in texts up to 4096 tokens write short_factor's numbers into long_factor.
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


def config(short, long):
    return {
        "model_type": "phi3", "hidden_size": 32, "intermediate_size": 32, "vocab_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096, "tie_word_embeddings": False,
        "rope_scaling": {"type": "longrope", "short_factor": [short] * 8, "long_factor": [long] * 8},
    }


def logits(short, long):
    made = config(short, long)
    model_class, arguments = _get_classes(made)
    mx.random.seed(0)
    shapes = mlx.utils.tree_flatten(model_class(arguments.from_dict(made)).parameters())
    mx.save_safetensors(
        "model.safetensors",
        {name: mx.random.normal(one.shape) for name, one in shapes if "rope" not in name},
    )
    pathlib.Path("config.json").write_text(json.dumps(made))
    model, _ = load_model(pathlib.Path("."))
    return model(mx.array([list(range(10, 18))]))[0]


plain = logits(1.0, 1.0)
by_short, by_long = (
    mx.abs(logits(*factors) - plain).max().item() for factors in ((8.0, 1.0), (1.0, 8.0))
)
print(f"short_factor 1 -> 8: logits change by {by_short:.3f}; long_factor 1 -> 8: by {by_long:.1f}")
assert by_short == 0 and by_long > 0.01
PYTHON
