"""Pieces of grammars in llguidance's Lark syntax."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

BLANK = r"/( |\n[ \t]{0,16})?/"
"""White space between two tokens of JSON, or none."""


def literal(text: str) -> str:
    """Return what matches exactly this text."""
    return json.dumps(text, ensure_ascii=False)


def tokens(ids: Iterable[int]) -> str:
    """Return what matches one of these tokens, special ones too."""
    return f"<[{','.join(map(str, sorted(ids)))}]>"


def written(text: str, special: Mapping[str, int]) -> str:
    """Return what matches a text in which special tokens are written out.

    Args:
        text: what is matched.
        special: the ids of special tokens by how they are written.
    """
    found = [token for token in special if token and token in text]
    if not found:
        return literal(text)
    longest_first = sorted(map(re.escape, found), key=len, reverse=True)
    pieces = re.split(f"({'|'.join(longest_first)})", text)
    rules = []
    for piece in pieces:
        if piece in special:
            rules.append(tokens([special[piece]]))
        elif piece:
            rules.append(literal(piece))
    return " ".join(rules)
