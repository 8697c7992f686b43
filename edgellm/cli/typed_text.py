"""Texts told from names, where either may have been typed."""

from __future__ import annotations

SENTENCE_ENDS = (".", "!", "?", ",", ":", ";", "…")
PATH_BEGINNINGS = ("/", "./", "../", "~")


def looks_like_text(word: str) -> bool:
    """Return whether a word is one that people write and not one that they name files by."""
    if word.startswith(PATH_BEGINNINGS):
        return False
    return len(word.split()) > 1 or (len(word) > 1 and word.endswith(SENTENCE_ENDS))
