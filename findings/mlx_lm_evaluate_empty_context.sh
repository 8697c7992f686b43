#!/bin/sh
# mlx-lm 0.32.2 with lm-eval 0.4.13 (PyPI): mlx_lm.evaluate scores nothing where a question has an
# empty context and the tokenizer adds no beginning token: every option gets minus infinity.
#
# One would expect: an empty context is a beginning or an end token, as in lm-eval's own classes, or
# an error. lm-eval's documentation of LM.loglikelihood says that models must handle an empty one.
#
# What happens: a context of no tokens counts as one that was cut away for want of room ("prefix
# eliminated"), and all its options get -inf, which says nothing on the screen. The largest of equal
# numbers is the first. In BLiMP, 67 tasks with an empty context, the first option is always right:
# a model without a beginning token and without a chat template gets 100%, whatever its weights.
#
# Output seen (x86-64, Python 3.11, mlx 0.32.4):
#   weights 0: [(-inf, False), (-inf, False)]
#   weights 1: [(-inf, False), (-inf, False)]
#   after "It is so:", weights 0: [(-88.4, False), (-94.1, False)]
#   the right option in BLiMP: doc_to_target: 0
#
# For users: look at the samples for -inf; Qwen's base models have no beginning token, for example.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    mlx-lm==0.32.2 "mlx[cpu]==0.32.4" lm-eval==0.4.13
cd "$folder"
venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import json
from pathlib import Path

import lm_eval
import mlx.core as mx
from lm_eval.api.instance import Instance
from mlx.utils import tree_flatten
from mlx_lm.evaluate import MLXLM
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "rms_norm_eps": 1e-6, "vocab_size": 257, "eos_token_id": 256,
}
OPTIONS = ["The cats sleep.", "The cats sleeps."]


def scores(seed, context):
    """What a model of random weights, with bytes for tokens, gives two options."""
    path = Path(f"model{seed}")
    path.mkdir(exist_ok=True)
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(CONFIG))
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (path / "config.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<|end|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(names))
    asked = [Instance("loglikelihood", {}, (context, text), 0) for text in OPTIONS]
    return [(round(score, 1), greedy) for score, greedy in MLXLM(str(path)).loglikelihood(asked)]


found = [scores(seed, "") for seed in (0, 1)]
for seed, answers in enumerate(found):
    print(f"weights {seed}: {answers}")
    assert answers == [(float("-inf"), False)] * 2
other = scores(0, "It is so:")
print('after "It is so:", weights 0:', other)
assert all(score > -1e3 for score, _ in other)
template = Path(lm_eval.__file__).parent / "tasks/blimp/_template_yaml"
(target,) = [line for line in template.read_text().splitlines() if "doc_to_target" in line]
print("the right option in BLiMP:", target)
assert target == "doc_to_target: 0"
PYTHON
