"""Tool calls in a reply: how models write them, and how they are parted from its text."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.chat_template.thinking import begun
from edgellm.models.through_mlx_lm.library import tool_parser
from edgellm.tokenizer import Tokenizer

Parse = Callable[[str], list[dict[str, Any]]]
"""Returns the calls in a text as ``{"name": ..., "arguments": {...}}``; raises anything else."""

ID_LENGTH = 9
"""Characters of a call's id; Mistral's templates take no other length."""

PYTHON_TAG = "<|python_tag|>"
"""What Llama 3.1 may write before a call."""

_TEXTS = ("[ARGS]", "[CALL_ID]", PYTHON_TAG)
"""Special tokens inside calls, apart from those around them."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a model writes tool calls.

    Attributes:
        start: comes before each call, or before all; empty: a reply that begins as JSON is one.
        end: comes after each; may be empty, and the reply may end before it.
        parse: reads what is between.
        is_json: whether that is JSON.
    """

    start: str
    end: str
    parse: Parse
    is_json: bool = True

    def texts(self) -> list[str]:
        """Return the texts that may be special tokens, and are to be seen here."""
        return [text for text in (self.start, self.end, *_TEXTS) if text]


def find_call_form(
    template: str, is_token: Callable[[str], bool], tools: Sequence[Mapping[str, Any]] = ()
) -> CallForm:
    """Return the form in which a model writes tool calls, by what its template has.

    Args:
        template: the source of the chat template for tools.
        is_token: whether a text is a token.
        tools: schemas, by which forms without types know an argument's.
    """
    # forms whose marks are in others, too, come first
    for mark, name in _OF_MLX_LM.items():
        if mark in template:
            start, end, parse = tool_parser(name)
            read = partial(_parse_as_mlx_lm, parse, list(tools))
            return CallForm(start, end, read, is_json=False)
    for start, end in _WITH_JSON:
        if start in template or is_token(start):
            return CallForm(start, end, _parse_json)
    return CallForm("", "", _parse_json)


_OF_MLX_LM = {
    "<minimax:tool_call>": "minimax_m2",
    "<|tool_call>": "gemma4",
    "<start_function_call>": "function_gemma",
    "<longcat_tool_call>": "longcat",
    "<arg_key>": "glm47",
    "<|tool_call_start|>": "pythonic",
    "<|tool_list_start|>": "pythonic",
    "<function=": "qwen3_coder",
    "<|tool_calls_section_begin|>": "kimi_k2",
}
"""What a template has, and the module of ``mlx_lm.tool_parsers`` for it (as in mlx-lm 0.32)."""

_WITH_JSON = (
    ("[TOOL_CALLS]", ""),  # Mistral
    ("<tool_call>", "</tool_call>"),  # Hermes, Qwen
    ("<|tool_call|>", "<|/tool_call|>"),  # Granite 3, Phi-4-mini
)


class ToolCallFilter:
    """Parts a reply, piece by piece, into text and tool calls; shows nothing of a call.

    Args:
        form: how the model writes calls.
        hidden: special tokens, which are never shown.
    """

    def __init__(self, form: CallForm, hidden: Collection[str]) -> None:
        self._form = form
        self._hidden = [token for token in hidden if token]
        self._held = ""
        self._is_call = False
        self._is_text = False

    def add(self, text: str) -> str:
        """Return what is sure by now of the text."""
        self._held += text
        if self._is_call:
            return ""
        start = self._form.start
        shown = self._held
        if start:
            place = self._held.find(start)
            self._is_call = place >= 0
            if not self._is_call:
                place = len(self._held) - begun(self._held, start)
            shown = self._held[:place]
        elif not self._is_text:
            beginning = self._held.lstrip()
            self._is_call = beginning.startswith(("{", "[", PYTHON_TAG))
            self._is_text = not self._is_call and not PYTHON_TAG.startswith(beginning)
            if not self._is_text:
                shown = ""
        self._held = self._held[len(shown) :]
        return self._shown(shown)

    def finish(self, *, whole: bool) -> tuple[str, list[dict[str, Any]]]:
        """Return what is left of the text, and the calls in OpenAI's form.

        What does not parse is text, and so is a call that was cut off.

        Args:
            whole: whether the model has ended the reply, which it may do before a call's end.
        """
        held, self._held = self._held, ""
        if self._is_call and (whole or held.rstrip().endswith(self._form.end)):
            # a stranger's text goes through the parsers of others: they raise what they like
            try:
                return "", [_in_openais_form(call) for call in self._calls(held)]
            except Exception:
                pass
        return self._shown(held), []

    def _calls(self, text: str) -> list[dict[str, Any]]:
        form = self._form
        pieces = [text]
        if form.start:
            pieces = text.split(form.start)[1:]
        calls = []
        for piece in pieces:
            inside = piece
            if form.end:
                inside, _, after = piece.partition(form.end)
                if after.strip():
                    raise ValueError("text after a call")
            calls += form.parse(inside)
        return calls

    def _shown(self, text: str) -> str:
        for token in self._hidden:
            text = text.replace(token, "")
        return text


def tool_filters(
    tokenizer: Tokenizer, template: ConversationTemplate, tools: Sequence[Mapping[str, Any]]
) -> tuple[CallForm, Callable[[], ToolCallFilter]]:
    """Return the form of calls, and a function that makes a filter for a reply.

    The template writes the tokens of calls from now on.

    Args:
        tokenizer: of the model.
        template: of the conversation.
        tools: schemas.
    """
    form = find_call_form(
        tokenizer.template_source(tools=True),
        lambda text: tokenizer.token_to_id(text) is not None,
        tools,
    )
    tokens = template.special_tokens_in(form.texts())
    template.write_tokens(tokens)
    return form, lambda: ToolCallFilter(form, tokens.values())


def _parse_json(text: str) -> list[dict[str, Any]]:
    """Return the calls of JSON objects, or a list of them, or Mistral's names with ``[ARGS]``."""
    text = text.replace(PYTHON_TAG, "").strip()
    if "[ARGS]" in text:
        name, _, arguments = text.partition("[ARGS]")
        name, _, call_id = name.partition("[CALL_ID]")
        call = {"name": name.strip(), "arguments": json.loads(arguments)}
        if call_id.strip():
            call["id"] = call_id.strip()
        return [call]
    calls = []
    decoder = json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        calls += _as_list(value)
        text = text[end:].lstrip("; \t\r\n")
    return calls


def _parse_as_mlx_lm(
    parse: Callable[..., Any], tools: list[Mapping[str, Any]], text: str
) -> list[dict[str, Any]]:
    return _as_list(parse(text, tools))


def _as_list(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return value
    return [value]


def _in_openais_form(call: Any) -> dict[str, Any]:
    """Return a call with its arguments as JSON. Raises what is wrong with it."""
    name = call["name"]
    arguments = call.get("arguments", call.get("parameters"))
    if arguments is None:
        arguments = {}
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        raise TypeError("a call has a name, and arguments by their names")
    call_id = call.get("id")
    if not isinstance(call_id, str):
        call_id = uuid4().hex[:ID_LENGTH]
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": call_id, "type": "function", "function": function}
