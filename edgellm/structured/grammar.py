"""A grammar: the form that an answer must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgellm.errors import ConfigError
from edgellm.setting_values import listed, require_text, shown
from edgellm.structured import library
from edgellm.structured.gbnf import lark_of_gbnf
from edgellm.structured.json_schema import (
    checked_schema,
    require_enforceable,
    with_real_dates,
)
from edgellm.structured.lark import literal

MAX_GRAMMAR = 300_000
"""Characters of a grammar or a regular expression."""

Kind = Literal["json_schema", "lark", "gbnf", "regex", "choices"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """The form that an answer must have; ``Sampling(grammar=...)`` holds an answer to it.

    Make one with ``json_schema``, ``json_object``, ``lark``, ``gbnf``, ``regex`` or ``choices``.
    It was checked then, belongs to no model, and may be used by many answers and threads. Two of
    the same text are equal.

    Attributes:
        kind: what it was made of; of a composed one, what takes longest in it.
        compiled: for llguidance.
    """

    kind: Kind
    compiled: str

    def __repr__(self) -> str:
        return f"<Grammar {self.kind}>"

    @property
    def step_items(self) -> int:
        """How much llguidance may look at for a mask."""
        if self.kind == "gbnf":
            return library.STEP_ITEMS_BY_CHARACTER
        return library.STEP_ITEMS

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str | bool) -> Grammar:
        """Return the grammar of the JSON documents that are valid by a schema.

        Members come in the order of ``properties``. White space is a blank, or a line break with
        indentation.

        Args:
            schema: a JSON schema (2020-12; those of older drafts mostly are, too), or its text.

        Raises:
            ConfigError: it is no schema, or has a keyword that cannot be enforced; says where.
            BackendError: llguidance is not installed.
        """
        checked = checked_schema(schema)
        require_enforceable(checked)
        return cls("json_schema", library.from_json_schema(with_real_dates(checked)))

    @classmethod
    def json_object(cls) -> Grammar:
        """Return the grammar of any JSON object. Raises BackendError."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Return a grammar in the Lark syntax of llguidance.

        Raises:
            ConfigError: it is not valid.
            BackendError: llguidance is not installed.
        """
        return cls._checked("lark", library.from_lark(_short_text("lark", text)))

    @classmethod
    def gbnf(cls, text: str) -> Grammar:
        """Return a grammar of llama.cpp, in its GBNF syntax without tokens.

        Raises:
            ConfigError: it is not valid.
            BackendError: llguidance is not installed.
        """
        return cls._checked("gbnf", library.from_lark(lark_of_gbnf(_short_text("gbnf", text))))

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Return the grammar of the texts that a regular expression matches as a whole.

        Args:
            pattern: in the syntax of Rust's regex, without anchors and look-around.

        Raises:
            ConfigError: it is not valid.
            BackendError: llguidance is not installed.
        """
        pattern = _short_text("regex", pattern)
        compiled = library.llguidance().LLMatcher.grammar_from_regex(pattern)
        return cls._checked("regex", compiled)

    @classmethod
    def choices(cls, texts: object) -> Grammar:
        """Return the grammar of some texts, one of which is the answer.

        Raises:
            ConfigError: they are not texts, or there are none.
            BackendError: llguidance is not installed.
        """
        choices = listed("choices", texts, "a list of texts")
        for text in choices:
            if not isinstance(text, str) or not text:
                raise ConfigError(
                    f"choices has {shown(text)}; each must be a text that is not empty",
                    hint="give the texts that may be answered",
                )
        if not choices:
            raise ConfigError("choices is empty", hint="give the texts that may be answered")
        rules = "\n | ".join(map(literal, choices))
        return cls._checked("choices", library.from_lark(_short_text("choices", f"start: {rules}")))

    @classmethod
    def composed(cls, text: str, parts: Mapping[str, Grammar]) -> Grammar:
        """Return a Lark grammar that has others as parts, by their names: ``@name``."""
        compiled = {name: part.compiled for name, part in parts.items()}
        kind: Kind = "lark"
        if any(part.kind == "gbnf" for part in parts.values()):
            kind = "gbnf"
        return cls._checked(kind, library.from_lark(text, compiled))

    @classmethod
    def _checked(cls, kind: Kind, compiled: str) -> Grammar:
        message = library.refusal(compiled)
        if message:
            raise ConfigError(
                f"the grammar ({kind}) is not valid: {message.strip()}",
                hint="docs/structured-output.md shows what each kind may have",
            )
        return cls(kind, compiled)


def _short_text(name: str, text: object) -> str:
    """Return a text of an acceptable length. Raises ConfigError."""
    checked = require_text(name, text)
    if len(checked) > MAX_GRAMMAR:
        raise ConfigError(
            f"{name} has {len(checked)} characters; at most {MAX_GRAMMAR} are compiled",
            hint="take a smaller grammar",
        )
    return checked
