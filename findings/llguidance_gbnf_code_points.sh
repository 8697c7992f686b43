#!/bin/sh
# llguidance 1.9.1 (PyPI): llguidance.gbnf_to_lark writes GBNF's "\u00e9" as "\ue9", which its own
# parser refuses, and the dot, any character in GBNF, as one that is any but a line break.
#
# One would expect: a GBNF grammar with code points by their numbers, as llama.cpp's documentation has
# them (8, 16 and 32 bits), compiles, and means the same characters.
#
# What happens: leading zeros of the number are cut off, in texts and in classes of characters; the
# Lark grammar is then refused. Where none is cut off, it is right.
#
# Output seen (x86-64, Python 3.11):
#   root ::= [\u00e9]        start: /[\ue9]/         refused
#   root ::= [\u3041-\u309f] start: /[\u3041-\u309f]/ taken
#   root ::= "a" . "b"       "a\nb" fits: False
#
# For users: write the characters themselves, and (. | [\n]) for the dot.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check llguidance==1.9.1
"$folder/venv/bin/python" - <<'PYTHON'
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import gbnf_to_lark

found = []
for gbnf in (r"root ::= [\u00e9]", r"root ::= [\u3041-\u309f]"):
    lark = gbnf_to_lark(gbnf)
    refused = bool(LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(lark)))
    print(f"{gbnf:24} {lark.split(chr(10))[2]:22} {['taken', 'refused'][refused]}")
    found.append(refused)


class Bytes:
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]

    def __call__(self, text):
        return list(text.encode())


lark = gbnf_to_lark('root ::= "a" . "b"')
matcher = LLMatcher(LLTokenizer(TokenizerWrapper(Bytes())), LLMatcher.grammar_from_lark(lark))
fits = matcher.try_consume_tokens(list(b"a\nb")) == 3
print(f'root ::= "a" . "b"       "a\\nb" fits: {fits}')
assert (found, fits) == ([True, False], False), (found, fits)
PYTHON
