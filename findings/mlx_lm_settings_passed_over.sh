#!/bin/sh
# mlx-lm 0.32.2 with mlx 0.32.4 (PyPI): three families pass over a setting of attention in config.json
# without a word: Mistral and Gemma 2 their window, Qwen3's mixtures of experts their YaRN.
#
# One would expect: a setting that changes the arithmetic is computed, as in transformers 5.24.0, or
# the model is refused. Mistral 7B v0.1 and every other layer of Gemma 2 attend to the last 4096
# tokens alone ("sliding_window"); Qwen's model cards give YaRN ("rope_scaling") for long texts.
#
# What happens: a mistral runs as a llama, which has windows only where "layer_types" names them, and
# a Mistral's config has no such list; gemma2 does not read "sliding_window" at all (gemma3_text
# does); qwen3_moe reads "rope_scaling" and makes nn.RoPE without it (the dense qwen3 does use it).
# With the setting and without, the logits are the same bits.
#
# Output seen (x86-64, Python 3.11):
#   mistral     with a window of 4 and without: logits differ by 0
#   gemma2      with a window of 4 and without: logits differ by 0
#   gemma3_text with a window of 4 and without: logits differ by 5.7
#   qwen3_moe   with yarn          and without: logits differ by 0
#   qwen3       with yarn          and without: logits differ by 0.7
#
# For users: keep texts of these models within the window, or within the original context.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" - <<'PYTHON'
import mlx.core as mx
from mlx_lm.utils import _get_classes

CONFIG = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "query_pre_attn_scalar": 16, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    "sliding_window_pattern": 2, "sliding_window": 4096,
    "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "moe_intermediate_size": 32, "norm_topk_prob": True,
}  # each family takes what it knows of it
WINDOW = {"sliding_window": 4}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
SCALED = {"rope_scaling": YARN}


def change(family, setting):
    """The largest difference of logits with the setting and without it, in the same weights."""
    logits = []
    for config in (CONFIG, CONFIG | setting):
        mx.random.seed(0)
        model_class, arguments = _get_classes(config | {"model_type": family})
        model = model_class(arguments.from_dict(config | {"model_type": family}))
        logits.append(model(mx.array([list(range(60))])))
    return mx.abs(logits[0] - logits[1]).max().item()


for family, what, setting, passed_over in (
    ("mistral", "a window of 4", WINDOW, True),
    ("gemma2", "a window of 4", WINDOW, True),
    ("gemma3_text", "a window of 4", WINDOW, False),
    ("qwen3_moe", "yarn", SCALED, True),
    ("qwen3", "yarn", SCALED, False),
):
    difference = change(family, setting)
    print(f"{family:11} with {what:13} and without: logits differ by {difference:.2g}")
    assert (difference == 0) == passed_over, family
PYTHON
