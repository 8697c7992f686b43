#!/bin/sh
# transformers 5.24.0 (PyPI): a tokenizer.json and tokenizer_class LlamaTokenizer or GPT2Tokenizer in
# tokenizer_config.json, as most releases of 2023 and 2024 have them.
#
# One would expect: the ids that the tokenizers library gives with the same tokenizer.json, which is
# what transformers 4 loaded, and what the model was trained and served with.
#
# What happens: the class takes vocabulary and merges from the file and makes normalizer and
# pre-tokenizer anew, whatever the file says. Llama 2's file puts "▁" before every text; the class
# leaves it out where a text begins with a space. A composing normalizer (NFC) is lost with GPT2Tokenizer.
#
# Output seen:
#   class                    text          file        transformers
#   LlamaTokenizer           ' a'          [3, 3, 4]   [3, 4]
#   GPT2Tokenizer            'e\u0301'     [5]         [2, 3, 4]
#   PreTrainedTokenizerFast  'e\u0301'     [5]         [5]
#
# For users: texts that begin with spaces, or are not composed, get other ids than before; prompts
# that are cut into pieces and continuations (" Hello") are where it shows.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" 2>/dev/null <<'PYTHON'
import json, pathlib, sys
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

pieces = Tokenizer(models.BPE({"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4}, [], unk_token="<unk>"))
pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
vocabulary = {"<|endoftext|>": 0, "Ã": 1, "e": 2, "Ì": 3, "ģ": 4, "Ã©": 5, "©": 6}
letters = Tokenizer(models.BPE(vocabulary, [("Ã", "©")]))
letters.normalizer = normalizers.NFC()
letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
letters.decoder = decoders.ByteLevel()

CASES = [
    ("LlamaTokenizer", pieces, " a", [3, 3, 4], [3, 4]),
    ("GPT2Tokenizer", letters, "e\u0301", [5], [2, 3, 4]),
    ("PreTrainedTokenizerFast", letters, "e\u0301", [5], [5]),
]
print(f"{'class':24} {'text':13} {'file':11} transformers")
for name, tokenizer, text, by_file, by_class in CASES:
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    other = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    print(f"{name:24} {ascii(text):13} {ids!s:11} {other}")
    assert (ids, other) == (by_file, by_class), "they give other ids now"
PYTHON
