#!/bin/sh
# gguf 0.19.0 (PyPI): of a folder's two chat templates SpecialVocab takes the one in
# tokenizer_config.json, transformers 5.24.0 the one in chat_template.jinja.
#
# One would expect: the file made of a folder talks as the folder does. transformers saves templates
# as chat_template.jinja, and lets that file stand for whatever the config still has; this is how a
# template is mended without touching the config.
#
# What happens: SpecialVocab (of llama.cpp's convert_hf_to_gguf.py) asks the config first, and reads
# the file only where the config has no such key. A key that is null hides the file altogether.
#
# Output seen (x86-64, Python 3.11):
#   both there: transformers renders 'new hi', gguf 0.19.0 stores 'old {{ messages[0].content }}'
#   null in the config: transformers renders 'new hi', gguf 0.19.0 stores None
#
# For users: a GGUF file of a folder whose template was mended has the old one; pass the template
# with --chat-template-file, or take "chat_template" out of tokenizer_config.json before converting.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 transformers==5.24.0 \
    numpy==2.4.6 jinja2==3.1.6
cd "$folder"
venv/bin/python - <<'PYTHON' 2>/dev/null
import json
import pathlib

from gguf import SpecialVocab
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

OLD, NEW = (word + " {{ messages[0].content }}" for word in ("old", "new"))
model = pathlib.Path("model")
model.mkdir()
Tokenizer(models.WordLevel({"hi": 0, "<s>": 1}, unk_token="<s>")).save("model/tokenizer.json")
(model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 2}))
(model / "chat_template.jinja").write_text(NEW)


def seen(template):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = AutoTokenizer.from_pretrained(model)
    messages = [{"role": "user", "content": "hi"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    stored = SpecialVocab(model, load_merges=False).chat_template
    return rendered, stored


for name, template, expected in (("both there", OLD, OLD), ("null in the config", None, None)):
    rendered, stored = seen(template)
    print(f"{name}: transformers renders {rendered!r}, gguf 0.19.0 stores {stored!r}")
    assert rendered == "new hi", rendered
    assert stored == expected, stored
PYTHON
