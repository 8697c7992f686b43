"""The form of an answer as options: a JSON schema or a grammar, in a file or as it is."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from edgellm.cli import headings
from edgellm.errors import ConfigError
from edgellm.files.bounded import read_given_text
from edgellm.files.given_path import given_path
from edgellm.structured.grammar import MAX_GRAMMAR, Grammar

JsonSchema = Annotated[
    str | None,
    Option(
        "--json-schema",
        "-j",
        metavar="FILE|JSON",
        help="The answer is JSON that is valid by this schema.",
        rich_help_panel=headings.SAMPLING,
    ),
]
GrammarText = Annotated[
    str | None,
    Option(
        "--grammar",
        metavar="FILE|TEXT",
        help="The answer follows this grammar: GBNF as in llama.cpp, or Lark as in llguidance.",
        rich_help_panel=headings.SAMPLING,
    ),
]


def read_grammar(json_schema: str | None, grammar: str | None) -> Grammar | None:
    """Return the form that two options give; None without them.

    Raises:
        ConfigError: both are given, a file cannot be read, or it is not valid.
        BackendError: llguidance is not installed.
    """
    if json_schema is not None and grammar is not None:
        raise ConfigError(
            "--json-schema and --grammar are both given", hint="leave out one of them"
        )
    if json_schema is not None:
        return Grammar.json_schema(_text(json_schema, is_text=json_schema.lstrip()[:1] == "{"))
    if grammar is None:
        return None
    text = _text(grammar, is_text="::=" in grammar or "start:" in grammar)
    if "::=" in text:
        return Grammar.gbnf(text)
    return Grammar.lark(text)


def _text(given: str, *, is_text: bool) -> str:
    if is_text:
        return given
    return read_given_text(
        given_path(given), MAX_GRAMMAR, hint="name a file, or give its text between quotes"
    )
