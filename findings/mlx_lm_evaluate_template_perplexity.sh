#!/bin/sh
# mlx-lm 0.32.2 with lm-eval 0.4.13 (PyPI): whether a model's folder has a chat template changes the
# perplexity that mlx_lm.evaluate gives of a plain text.
#
# One would expect: perplexity tasks read a text as it is, so that a template, which is not used,
# changes nothing. lm-eval's own class for transformers gives the same figure with and without one.
#
# What happens: where there is a template, MLXLM takes every text for one that a template has
# written, and encodes it without the beginning token. The first token of the text then stands where
# the beginning stood and is not scored, while words and bytes are counted as before: an instruct
# model looks better than its base by the likelihood of a document's first token, for each document.
#
# Output seen (x86-64, Python 3.11, mlx 0.32.4; equal weights, a text of 9 bytes):
#   without a template: log-likelihood -50.34, 8.07 bits a byte
#   with a template:    log-likelihood -43.91, 7.04 bits a byte
#
# For users: pass use_chat_template=False to MLXLM for perplexity tasks.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    mlx-lm==0.32.2 "mlx[cpu]==0.32.4" lm-eval==0.4.13
cd "$folder"
venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import json
import math
from pathlib import Path

import mlx.core as mx
from lm_eval.api.instance import Instance
from mlx.utils import tree_flatten
from mlx_lm.evaluate import MLXLM
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "rms_norm_eps": 1e-6, "vocab_size": 257, "eos_token_id": 256,
}
TEXT = "Good day."
path = Path("model")
path.mkdir()
mx.random.seed(0)
weights = dict(tree_flatten(Model(ModelArgs.from_dict(CONFIG)).parameters()))
mx.save_safetensors(str(path / "model.safetensors"), weights)
(path / "config.json").write_text(json.dumps(CONFIG))
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {token: number for number, token in enumerate([*alphabet, "<s>"])}
tokenizer = Tokenizer(models.BPE(vocabulary, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens(["<s>"])
tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 256)]
)
tokenizer.save(str(path / "tokenizer.json"))
names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<s>"}
found = []
for words, template in (("without", {}), ("with", {"chat_template": "{{ messages }}"})):
    (path / "tokenizer_config.json").write_text(json.dumps(names | template))
    model = MLXLM(str(path))
    assert len(model.tokenizer.encode(TEXT)) == 1 + len(TEXT)  # <s> and a token a byte
    (score,) = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (TEXT,), 0)])
    found.append(score)
    bits = -score / len(TEXT) / math.log(2)
    print(f"{words + ' a template:':19} log-likelihood {score:.2f}, {bits:.2f} bits a byte")
assert found[1] - found[0] > 3
PYTHON
