"""Texts that tokenizers find hard, and tokens to mix into them."""

from hypothesis import strategies as st
from support.tiny_tokenizers import CHAT

PARTS = [
    *CHAT,
    "<s>",
    "</s>",
    "<unk>",
    "<|begin|>",
    "<|strip|>",
    "word",
    " ",
    "  ",
    "\n",
    "\t",
    "é",
    "😀",
    "中",
    "a",
]
PARTS += [
    "Hello",
    " the",
    " little dog",
    "<0x41>",
    "\u200d",
    "\x00",
    "<",
    "|>",
    "'s",
    "12345",
    "glücklich",
    "e\u0301",
    "ﬁ",
]
mixed_texts = st.lists(st.sampled_from(PARTS), max_size=10).map("".join)
TOKENS = [*CHAT, "<s>", "</s>", "<unk>"]
any_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
