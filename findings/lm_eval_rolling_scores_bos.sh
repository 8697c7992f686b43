#!/bin/sh
# lm-eval 0.4.13 with transformers 5.24.0 (PyPI): perplexity tasks (loglikelihood_rolling) of a model
# whose tokenizer adds a beginning token score that token too, after another one.
#
# One would expect: what LM.loglikelihood_rolling documents: a text's own tokens, each predicted once,
# the first of them after the prefix token.
#
# What happens: HFLM encodes the text with the tokenizer's special tokens and then puts the prefix
# token before it. The model reads <s> <s> text, and the log-likelihood of <s> after <s>, which no
# model has learnt, is added to each document; words and bytes are counted of the text alone. Short
# documents suffer most; models whose tokenizer adds nothing (Qwen) do not.
#
# Output seen (x86-64, Python 3.11, torch 2.13.0, accelerate 1.15.0; a text of 9 tokens):
#   loglikelihood_rolling:                      -61.28
#   the tokens after <s> <s>, and <s> after it: -61.28
#   the tokens after one <s>:                   -53.87
#
# For users: with add_bos_token=False in model_args such tasks score the text alone.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    lm-eval==0.4.13 transformers==5.24.0 torch==2.13.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - 2>log <<'PYTHON' || { cat log; exit 1; }
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "Good day."
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate([*alphabet, "<s>"])}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens(["<s>"])
tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 256)]
)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=257, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, bos_token_id=256, eos_token_id=256,
)
model = LlamaForCausalLM(config).eval()
model.lm_head.weight.data *= 10  # so that likelihoods differ visibly
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def score(*ids):
    """The log-likelihood of all tokens but the first."""
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logs.gather(1, torch.tensor(ids[1:])[:, None]).sum().item()


def rolling(**settings):
    harness = HFLM(pretrained=model, tokenizer=fast, device="cpu", **settings)
    (found,) = harness.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (TEXT,), 0)])
    return found


own = fast.encode(TEXT, add_special_tokens=False)
found, twice, once = rolling(), score(256, 256, *own), score(256, *own)
print(f"loglikelihood_rolling:                      {found:.2f}")
print(f"the tokens after <s> <s>, and <s> after it: {twice:.2f}")
print(f"the tokens after one <s>:                   {once:.2f}")
assert abs(found - twice) < 1e-3 < 1 < abs(found - once)
assert abs(rolling(add_bos_token=False) - once) < 1e-3
PYTHON
