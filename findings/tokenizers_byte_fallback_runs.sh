#!/bin/sh
# tokenizers 0.23.3 (PyPI): the decoder ByteFallback, and a run of byte tokens that ends in half a
# character.
#
# One would expect: the whole characters of the run, and a mark for the bytes that are none, as
# Python's bytes.decode(errors="replace") and SentencePiece give them.
#
# What happens: if any byte of a run of byte tokens is no part of a character, every byte of the run
# becomes a mark, those of whole characters too.
#
# Output seen:
#   ids of                decoded
#   😀                    '\U0001f600'
#   😀 + half of another  '\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd'
#   A (a byte) + half     '\ufffd\ufffd\ufffd'
#
# For users: a text of a LLaMA, Mistral or Gemma that is cut in the middle of an emoji (max_tokens, a
# stream) loses the emojis and other rare characters right before it; transformers decodes so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, decoders, models

vocabulary = {"<unk>": 256} | {f"<0x{byte:02X}>": byte for byte in range(256)}
tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])

emoji, half = list("😀".encode()), list("😀".encode())[:2]
CASES = {
    "😀": (emoji, "😀"),
    "😀 + half of another": (emoji + half, "\ufffd" * 6),
    "A (a byte) + half": ([65, *half], "\ufffd" * 3),
}
print(f"{'ids of':20} decoded")
for name, (ids, expected) in CASES.items():
    decoded = tokenizer.decode(ids)
    print(f"{name:20} {ascii(decoded)}")
    assert decoded == expected, "tokenizers decodes it otherwise now"
PYTHON
