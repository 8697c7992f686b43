#!/bin/sh
# tokenizers 0.23.3 (PyPI): added tokens with letters beyond ASCII, and the decoder ByteLevel.
#
# One would expect: a text that was encoded by added tokens and bytes decodes to itself, as it does
# where the added token is plain ASCII.
#
# What happens: an added token is found in a text as it is written, and the decoder takes its letters
# for GPT-2's letters of bytes all the same. A token all of whose letters are among those 256 comes
# back as other bytes; one with a letter outside (Japanese, say) comes back whole, in the same call.
#
# Output seen:
#   text        ids   decoded
#   'word'      [256] 'word'
#   'na\xefve'  [257] 'na\ufffdve'
#   '\u0111em'  [258] '\x11em'
#   '\u65e5'    [259] '\u65e5'
#
# For users: words of European languages that are added to a byte-level tokenizer (Llama 3's, Qwen's)
# are shown broken wherever texts are decoded by tokenizers; transformers and mlx-lm do so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
words = ["word", "na\u00efve", "\u0111em", "\u65e5"]
tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])

EXPECTED = ["word", "na\ufffdve", "\x11em", "\u65e5"]
print(f"{'text':11} ids   decoded")
for at, (word, expected) in enumerate(zip(words, EXPECTED)):
    ids = tokenizer.encode(word).ids
    decoded = tokenizer.decode(ids)
    print(f"{ascii(word):11} {ids} {ascii(decoded)}")
    assert ids == [256 + at]
    assert decoded == expected, "tokenizers decodes it otherwise now"
PYTHON
