"""Texts of plain words that begin with a number, so that no two begin alike."""

from __future__ import annotations

WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child"),
    *("world", "school", "state", "family", "group", "country", "hand", "part", "place", "case"),
)


def numbered_text(number: int, length: int) -> str:
    """Return a text of ``length`` words, the first of which spell the number."""
    words = []
    for place in range(length):
        if number:
            number, word = divmod(number, len(WORDS))
        else:
            word = place % len(WORDS)
        words.append(WORDS[word])
    return " ".join(words)
