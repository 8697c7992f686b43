"""Words of any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
"""Scripts written without spaces between words: each of their letters counts as one."""


def words(text: str) -> list[str]:
    """Return the words of a text, folded: runs of letters, digits and the marks on them.

    In scripts without spaces each letter is a word. On ASCII, these are the runs of a-z and 0-9
    of the text in lower case.
    """
    found: list[str] = []
    before = "other"
    for character in _folded(text):
        kind = _kind(character)
        if kind == "format":
            continue
        if kind == "mark":
            if before != "other":
                found[-1] += character
            continue
        if kind == "inner" and before == "inner":
            found[-1] += character
        elif kind != "other":
            found.append(character)
        before = kind
    return found


def contains_run(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Say whether the words of a part follow each other somewhere in a whole."""
    size = len(part)
    return any(
        list(whole[begin : begin + size]) == list(part) for begin in range(len(whole) - size + 1)
    )


def _folded(text: str) -> str:
    # folding may write a letter as a letter and a mark, so that the marks have to be put in order
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return "format"
    if category.startswith("M"):
        return "mark"
    if category[0] not in "LN":
        return "other"
    code = ord(character)
    if any(first <= code <= last for first, last in UNSPACED):
        return "alone"
    return "inner"
