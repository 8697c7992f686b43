#!/bin/sh
# mlx-lm 0.32.2 with mlx 0.32.4 (PyPI): the rotary scaling of a Qwen3 mixture of experts is read and
# not used: with yarn and without, the logits are the same bits.
#
# One would expect: Qwen's pages have YaRN for texts beyond 32,768 tokens: "rope_scaling": {"rope_type":
# "yarn", "factor": 4.0, "original_max_position_embeddings": 32768} in config.json. The dense Qwen3 of
# the same mlx-lm does it (mlx_lm.models.qwen3 calls initialize_rope), and so does transformers for both.
#
# What happens: mlx_lm.models.qwen3_moe has "rope_scaling" among its arguments and makes nn.RoPE
# without it. Nothing is said.
#
# Output seen (x86-64, Python 3.11):
#   qwen3: logits differ with yarn: True
#   qwen3_moe: logits differ with yarn: False
#
# For users: texts of such a model stay within its original context in mlx-lm.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mlx-lm==0.32.2 "mlx[cpu]==0.32.4"
cd "$folder"
venv/bin/python - <<'PYTHON'
from importlib import import_module

import mlx.core as mx

CONFIG = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 100,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096, "rope_theta": 1e6, "tie_word_embeddings": False,
    "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "moe_intermediate_size": 32, "norm_topk_prob": True,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
differ = {}
for family in ("qwen3", "qwen3_moe"):
    module = import_module(f"mlx_lm.models.{family}")
    logits = []
    for scaling in (None, YARN):
        mx.random.seed(0)
        config = {**CONFIG, "model_type": family, "rope_scaling": scaling}
        model = module.Model(module.ModelArgs.from_dict(config))
        logits.append(model(mx.array([list(range(90))])))
    differ[family] = not mx.array_equal(*logits).item()
    print(f"{family}: logits differ with yarn: {differ[family]}")
assert differ["qwen3"], "the dense model does not scale either"
assert not differ["qwen3_moe"], "the mixture scales now"
PYTHON
