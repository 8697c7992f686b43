#!/bin/sh
# llguidance 1.9.1 (PyPI): LLTokenizer(wrapper, n_vocab=N) passes over n_vocab where the tokenizer is a
# TokenizerWrapper.
#
# One would expect: "n_vocab: int - override the size of the vocabulary": masks have a bit for each of
# N tokens, as a model's head has them, which is often padded to more tokens than the tokenizer has.
#
# What happens: vocab_size stays the number of the wrapper's tokens, and masks end there. Logits behind
# them are not masked by who applies such a mask, unless he cuts them off himself.
#
# Output seen (x86-64, Python 3.11):
#   n_vocab None: vocab_size 257, bits of a mask 288
#   n_vocab 512:  vocab_size 257, bits of a mask 288
#
# For users: put tokens of no bytes behind the others, or ban what is behind the mask.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check llguidance==1.9.1
"$folder/venv/bin/python" - <<'PYTHON'
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Bytes:
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]

    def __call__(self, text):
        return list(text.encode())


found = []
for n_vocab in (None, 512):
    tokenizer = LLTokenizer(TokenizerWrapper(Bytes()), n_vocab=n_vocab)
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark("start: /[a-z]+/"))
    bits = 8 * len(matcher.compute_bitmask())
    print(f"n_vocab {n_vocab}: vocab_size {tokenizer.vocab_size}, bits of a mask {bits}")
    found.append((tokenizer.vocab_size, bits))
assert found == [(257, 288), (257, 288)], found
PYTHON
