"""GBNF, the grammars of llama.cpp, in llguidance's Lark syntax.

llguidance brings a translator; what it gets wrong is written in another way before.
"""

from __future__ import annotations

import re

from edgellm.errors import ConfigError
from edgellm.structured.library import llguidance

_PIECES = re.compile(
    r'(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<letters>\[(?:[^\]\\\n]|\\.)*\])|(?P<note>#[^\n]*)|(?P<any>\.)'
)
_TERMINALS = re.compile(r'"(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)*/|//[^\n]*|([A-Z][A-Z0-9_]*)')
_CODE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}


def lark_of_gbnf(text: str) -> str:
    """Return a GBNF grammar in Lark syntax; raises ConfigError where it cannot be.

    Tokens (``<think>``, ``<[1000]>``) are not translated.
    """
    llguidance()
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        translated: str = gbnf_to_lark(_PIECES.sub(_rewritten, text))
    except Exception as error:  # it raises what it likes
        raise ConfigError(
            f"the GBNF grammar is not valid: {error}",
            hint="it begins with the rule root; rules are NAME ::= SEQUENCE | SEQUENCE",
        ) from error
    return _TERMINALS.sub(_as_rule, translated)


def _as_rule(match: re.Match[str]) -> str:
    """Return the name of a terminal as that of a rule.

    A terminal is as long as it can be: blanks at its end would take the line break that has to
    come after it. In a rule each character counts by itself, as in llama.cpp.
    """
    if match[1] is None:
        return match[0]
    return f"each_{match[1].lower()}"


def _rewritten(match: re.Match[str]) -> str:
    """Return a piece of a grammar with characters instead of their numbers."""
    piece = match[0]
    if match["any"]:
        return r"(. | [\n])"  # the dot of a regular expression is no line break
    if match["text"]:
        return _CODE.sub(_in_text, piece)
    if match["letters"]:
        return _CODE.sub(_in_letters, piece)
    return piece


def _in_text(match: re.Match[str]) -> str:
    character = _character(match)
    return _ESCAPES.get(character, character) or match[0]


def _in_letters(match: re.Match[str]) -> str:
    """Return a character of a class; those of ASCII keep a number, as some have a meaning there."""
    character = _character(match)
    if character and ord(character) < 0x80:
        return f"\\x{ord(character):02x}"
    return character or match[0]


def _character(match: re.Match[str]) -> str:
    """Return the character that a number stands for; "" for another escape, or none."""
    digits = match[1] or match[2] or match[3] or ""
    if not digits or int(digits, 16) > 0x10FFFF:
        return ""
    return chr(int(digits, 16))
