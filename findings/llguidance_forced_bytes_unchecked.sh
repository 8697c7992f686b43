#!/bin/sh
# llguidance 1.9.1 (PyPI): where a grammar forces the next bytes, the mask allows one token that is not
# checked against them, and which consume_token then refuses.
#
# One would expect: a token that compute_bitmask allows is one that consume_token takes.
#
# What happens: forced bytes are given to the tokenizer's own encoder, and the first token of what
# comes back is all that the mask allows. An encoder that begins each text with a blank, as those of
# SentencePiece do, answers "{" with " " and "{": the mask has the blank alone, and the matcher ends in
# an error for good.
#
# Output seen (x86-64, Python 3.11):
#   encoder that adds a blank    allowed [' '] taken: False Parser Error: token " " doesn't satisfy ...
#   encoder of the bytes alone   allowed ['{'] taken: True
#
# For users: give TokenizerWrapper an encoder whose tokens have exactly the bytes of the text, for
# example that of "\x02" + text without the tokens of "\x02" (llguidance.hf does so).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check llguidance==1.9.1 numpy==2.3.5
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Bytes:
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]

    def __init__(self, prefix):
        self.prefix = prefix

    def __call__(self, text):
        return list((self.prefix + text).encode())


found = []
for what, prefix in (("encoder that adds a blank", " "), ("encoder of the bytes alone", "")):
    tokenizer = LLTokenizer(TokenizerWrapper(Bytes(prefix)))
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark('start: "{" /[a-z]+/ "}"'), log_level=0)
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    allowed = np.flatnonzero(bits).tolist()
    taken = matcher.consume_token(allowed[0])
    print(f"{what:28} allowed {[chr(one) for one in allowed]} taken: {taken}", end=" ")
    print(matcher.get_error().split("\n")[0][:45])
    found.append((allowed, taken))
assert found == [([32], False), ([123], True)], found
PYTHON
