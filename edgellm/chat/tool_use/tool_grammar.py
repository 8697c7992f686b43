"""Grammars of tool calls: which calls a reply may have, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgellm.chat.tool_use.call_style import CallStyle
from edgellm.chat.tool_use.tool_calls import CallForm
from edgellm.errors import ConfigError
from edgellm.setting_values import shown
from edgellm.structured.grammar import Grammar
from edgellm.structured.lark import BLANK, literal, tokens, written

ToolChoice = Literal["auto", "required", "none"] | str | Mapping[str, Any]
"""OpenAI's ``tool_choice``: with a mapping, the tool that it names is called."""

ANY_OBJECT: dict[str, Any] = {"type": "object"}
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_CHOICES = ("auto", "required", "none")


def checked_choice(choice: object, tools: Sequence[Mapping[str, Any]]) -> str:
    """Return ``auto``, ``required``, ``none``, or the name of the tool that is to be called.

    The name comes as ``{"type": "function", "function": {"name": ...}}``, or as the text itself.

    Raises:
        ConfigError: it is something else, or there is no such tool.
    """
    names = [tool["function"]["name"] for tool in tools]
    name = choice
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = None
        if isinstance(function, Mapping):
            name = function.get("name")
    elif isinstance(choice, str) and choice in _CHOICES:
        if choice == "required" and not tools:
            raise ConfigError("tool_choice is required, and there are no tools", hint="give tools")
        return str(choice)
    if isinstance(name, str) and name in names and name not in _CHOICES:
        return name
    raise ConfigError(
        f"tool_choice is {shown(choice)}; it must be auto, required, none or one of the tools",
        hint=f"the tools are: {', '.join(names) or 'none'}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolGrammars:
    """Makes the grammars of a conversation's replies that may call tools.

    Attributes:
        form: how the model marks calls.
        style: how it writes them.
        tools: schemas in OpenAI's form.
        special: ids of the model's special tokens, by how they are written.
        choice: ``auto``, ``required`` or the name of a tool.
        parallel: whether there may be several calls.
    """

    form: CallForm
    style: CallStyle
    tools: Sequence[Mapping[str, Any]]
    special: Mapping[str, int]
    choice: str
    parallel: bool

    @property
    def is_free(self) -> bool:
        """Whether a reply may call nothing."""
        return self.choice == "auto"

    def grammar(self, answer: Grammar | None = None) -> Grammar | None:
        """Return the form of a reply; None where it may be anything.

        With ``auto`` it is any text, or ``answer``, and may end in calls; those of tools that are
        not ``strict`` are held to nothing but JSON, and only where something else has to be. Else
        it is calls, each valid by its tool's schema.

        Args:
            answer: the form of a reply that calls nothing.

        Raises:
            ConfigError: a schema cannot be enforced, or calls of this model cannot.
            BackendError: llguidance is not installed.
        """
        is_strict = any(tool["function"].get("strict") for tool in self.tools)
        if self.is_free and self.parallel and not is_strict and answer is None:
            return None
        if not self.form.is_json:
            raise ConfigError(
                "this model's tool calls cannot be held to a form: they are not written as JSON",
                hint="use tool_choice auto, parallel calls, and neither strict tools nor a grammar",
            )
        if self.is_free and not self.form.start:
            raise ConfigError(
                "this model marks no tool calls: a reply is either free or held to be calls",
                hint="use tool_choice required, or auto with parallel calls and without strict",
            )
        parts = self._arguments()
        rules = [f"calls: {self._calls()}"]
        rules += [f"call_{place}: {self._call(self.tools[place], place)}" for place in self._called]
        if not self.is_free:
            rules.append(f"start: {self._start} calls")
        elif answer is not None:
            parts["answer"] = answer
            rules.append(f"start: @answer | {self._start} calls")
        else:
            rules += self._free_text()
        return Grammar.composed("\n".join(rules), parts)

    @property
    def _called(self) -> list[int]:
        """The places of the tools that may be called."""
        named = [
            place
            for place, tool in enumerate(self.tools)
            if tool["function"]["name"] == self.choice
        ]
        return named or list(range(len(self.tools)))

    @property
    def _start(self) -> str:
        if not self.form.start:
            return ""
        return written(self.form.start, self.special)

    def _arguments(self) -> dict[str, Grammar]:
        """Return the grammar of each tool's arguments."""
        return {
            f"arguments_{place}": self._arguments_of(self.tools[place]["function"], place)
            for place in self._called
        }

    def _arguments_of(self, function: Mapping[str, Any], place: int) -> Grammar:
        schema = function.get("parameters")
        if schema is None:
            schema = NO_ARGUMENTS
        if self.is_free and not function.get("strict"):
            schema = ANY_OBJECT
        try:
            return Grammar.json_schema(_as_object(schema))
        except ConfigError as error:
            raise ConfigError(
                f"tools[{place}].function.parameters: {error.message}", hint=error.hint
            ) from None

    def _calls(self) -> str:
        """Return the rule of all that follows the first start."""
        call = " | ".join(f"call_{place}" for place in self._called)
        end = ""
        if self.form.end:
            end = f" {BLANK} {written(self.form.end, self.special)}"
        if self.style.is_list:
            more = f'({BLANK} "," {BLANK} ({call}))*' if self.parallel else ""
            return f'{BLANK} "[" {BLANK} ({call}) {more} {BLANK} "]"{end}'
        one = f"{BLANK} ({call}){end}"
        if not self.parallel:
            return one
        if not self.form.start:
            return f"{one} (/; ?/ ({call}))*"
        return f"{one} ({BLANK} {self._start} {one})*"

    def _call(self, tool: Mapping[str, Any], place: int) -> str:
        """Return the rule of a call."""
        name = tool["function"]["name"]
        if self.style.is_named:
            call_id = f"({written('[CALL_ID]', self.special)} /[a-zA-Z0-9]{{9}}/)?"
            if "[CALL_ID]" not in self.special:
                call_id = ""
            mark = written("[ARGS]", self.special)
            return f"{literal(name)} {call_id} {mark} {BLANK} @arguments_{place}"
        call_id = ""
        if self.style.has_id:
            call_id = f'(","{BLANK} "\\"id\\":" {BLANK} /"[a-zA-Z0-9]{{9}}"/)?'
        key = literal(literal(self.style.arguments) + ":")
        return (
            f'"{{" {BLANK} "\\"name\\":" {BLANK} {literal(literal(name))} "," {BLANK}'
            f' {key} {BLANK} @arguments_{place} {call_id} {BLANK} "}}"'
        )

    def _free_text(self) -> list[str]:
        """Return the rules of a text that may go on with calls.

        Special tokens may stand in it: thinking may be marked by some.
        """
        others = sorted(set(self.special.values()) - {self.special.get(self.form.start, -1)})
        piece = "TEXT"
        if others:
            piece = f"(TEXT | {tokens(others)})"
        rules = ["start: text | begun calls", f"text: {piece}*", r"TEXT: /(.|\n)+/"]
        if self.form.start in self.special:
            return [*rules, f"begun: {piece}* {self._start}"]
        before = f"({piece}* {tokens(others)})?" if others else ""
        return [
            *rules,
            f"begun: {before} mark",
            f"mark[lazy]: ANY {literal(self.form.start)}",
            r"ANY: /(.|\n)*/",
        ]


def _as_object(schema: Any) -> Any:
    """Return a schema of arguments, which are an object even if it does not say so."""
    if isinstance(schema, dict) and "type" not in schema and "$ref" not in schema:
        return {"type": "object", **schema}
    return schema
