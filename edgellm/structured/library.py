"""llguidance: how it is imported, its options and its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from edgellm.errors import BackendError

WHITESPACE = r" |\n[ \t]{0,16}"
"""White space in JSON, between two tokens of it: a space, or a line break with indentation.

llguidance itself puts no bound on it, and a model may then write blanks up to its last token.
"""

_JSON_OPTIONS: dict[str, Any] = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": True,
    "whitespace_pattern": WHITESPACE,
    "coerce_one_of": False,
    "lenient": False,
}
"""All that changes what llguidance accepts: a schema may set none of it by ``x-guidance``."""


@cache
def llguidance() -> ModuleType:
    """Return the library. Raises BackendError where it is not installed."""
    try:
        import llguidance
    except ImportError as error:
        raise BackendError(
            "structured output needs llguidance, which is not installed",
            hint="install it, in edgellm's checkout: pip install '.[structured]'",
        ) from error
    module: ModuleType = llguidance
    return module


STEP_ITEMS, STEP_ITEMS_BY_CHARACTER = 50_000, 1_000_000
"""What llguidance may look at for a mask: its own limit, 2.5 ms of work, and that of GBNF grammars.

Those are parsed character by character: llama.cpp's english.gbnf needs 600,000 with a vocabulary
of 128,000.
"""


@cache
def limits(step_items: int = STEP_ITEMS) -> Any:
    """Return the limits of compilation and of a step, which have short errors."""
    return llguidance().LLParserLimits(step_max_items=step_items, verbose_errors=False)


def from_json_schema(schema: Mapping[str, Any] | bool) -> str:
    """Return a JSON schema as a grammar of llguidance."""
    if isinstance(schema, bool):
        schema = {"allOf": [schema]}  # options can be given to objects alone
    compiled: str = llguidance().LLMatcher.grammar_from_json_schema(
        json.dumps(schema), overrides=_JSON_OPTIONS
    )
    return compiled


def from_lark(text: str, parts: Mapping[str, str] | None = None) -> str:
    """Return a Lark grammar as a grammar of llguidance.

    Args:
        text: the grammar.
        parts: other grammars of llguidance by their names, as ``text`` calls them: ``@name``.
    """
    grammars: list[dict[str, Any]] = [{"name": "whole", "lark_grammar": text}]
    for name, compiled in (parts or {}).items():
        first, *others = json.loads(compiled)["grammars"]
        grammars += [{**first, "name": name}, *others]
    return json.dumps({"grammars": grammars})


@lru_cache(maxsize=256)
def refusal(compiled: str) -> str:
    """Return why llguidance refuses a grammar, "" where it does not."""
    message: str = llguidance().LLMatcher.validate_grammar(compiled, limits=limits())
    if message.startswith("WARNING"):
        return ""
    return message
