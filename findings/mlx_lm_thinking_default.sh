#!/bin/sh
# mlx-lm 0.32.2 (PyPI): its tokenizer switches thinking on where nobody has asked for it and the chat
# template leaves it off.
#
# One would expect: without enable_thinking a template renders what transformers 5.24.0 renders, its
# own default. Some think unless they are told not to (Qwen 3), some only when they are told to.
#
# What happens: TokenizerWrapper.apply_chat_template passes enable_thinking=True wherever <think> and
# </think> are tokens, so that a template of the second sort opens the thinking in every prompt.
#
# Output seen (x86-64, Python 3.11):
#   transformers 5.24.0: 'hi <think></think>'; mlx-lm 0.32.2: 'hi <think>'
#   with enable_thinking=False mlx-lm renders 'hi <think></think>'
#
# For users: prompts, and all that is measured with them, differ between the two; pass
# enable_thinking=False (--chat-template-config '{"enable_thinking": false}') for the model's default.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check mlx-lm==0.32.2 "mlx[cpu]==0.32.4" \
    transformers==5.24.0
cd "$folder"
venv/bin/python - <<'PYTHON' 2>/dev/null
import json
import pathlib

from mlx_lm.tokenizer_utils import load
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

TEMPLATE = (
    "{{ messages[0].content }} <think>"
    "{% if not enable_thinking is defined or not enable_thinking %}</think>{% endif %}"
)
model = pathlib.Path("model")
model.mkdir()
tokenizer = Tokenizer(
    models.WordLevel({"hi": 0, "<s>": 1, "<think>": 2, "</think>": 3}, unk_token="<s>")
)
tokenizer.add_tokens(["<think>", "</think>"])
tokenizer.save("model/tokenizer.json")
(model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 4}))
config = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<s>",
    "chat_template": TEMPLATE,
}
(model / "tokenizer_config.json").write_text(json.dumps(config))

messages = [{"role": "user", "content": "hi"}]
theirs = AutoTokenizer.from_pretrained(model).apply_chat_template(messages, tokenize=False)
wrapper = load(model)
mlx_lm = wrapper.apply_chat_template(messages, tokenize=False)
told = wrapper.apply_chat_template(messages, tokenize=False, enable_thinking=False)
print(f"transformers 5.24.0: {theirs!r}; mlx-lm 0.32.2: {mlx_lm!r}")
print(f"with enable_thinking=False mlx-lm renders {told!r}")
assert theirs == told == "hi <think></think>", (theirs, told)
assert mlx_lm == "hi <think>", mlx_lm
PYTHON
