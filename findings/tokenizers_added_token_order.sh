#!/bin/sh
# tokenizers 0.23.3 (PyPI): a tokenizer.json whose added_tokens do not stand in the order of their ids
# loads without a word, and tokens that are not in the vocabulary get ids in the order of the list.
#
# One would expect: each added token has the id that its entry states ("id": 6), or the file is
# refused.
#
# What happens: new tokens are numbered from the vocabulary's size upwards as they come in the list,
# whatever their entries say. The post-processor keeps the file's own ids, so the token that it puts
# in front of a text decodes to another added token. Entries in the order of their ids are read
# as they are meant.
#
# Output seen (x86-64, Python 3.11, tokenizers 0.23.3):
#   in order:     <s> is 4, </s> is 5; "a" is encoded as [4, 0] = <s> a
#   out of order: <s> is 5, </s> is 4; "a" is encoded as [4, 0] = </s> a
#
# For users: sort added_tokens by id before loading a file that was put together by hand or by a script.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'PYTHON'
import json

from tokenizers import Tokenizer

BEGIN, END = 4, 5


def added(content, number):
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"id": number, "content": content, "special": True, **flags}


def opened(tokens):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": None, "pre_tokenizer": None, "decoder": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text, text],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]}},
        },
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "unk_token": "d"},
    }))


entries = [added("<s>", BEGIN), added("</s>", END)]
seen = {}
for name, tokens in (("in order", entries), ("out of order", entries[::-1])):
    tokenizer = opened(tokens)
    begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    ids = tokenizer.encode("a").ids
    words = " ".join(tokenizer.id_to_token(one) for one in ids)
    print(f'{name + ":":13} <s> is {begin}, </s> is {end}; "a" is encoded as {ids} = {words}')
    seen[name] = (begin, end, words)
assert seen["in order"] == (BEGIN, END, "<s> a"), "the valid order is read otherwise"
assert seen["out of order"] == (END, BEGIN, "</s> a"), "the stated ids are kept: out of date"
PYTHON
