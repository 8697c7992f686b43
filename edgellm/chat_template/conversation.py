"""A model's chat template as a conversation uses it: with its variables and thinking."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgellm.chat_template.thinking import (
    Markers,
    ThinkingFilter,
    find_markers,
    template_variables,
    visible_reply,
)
from edgellm.errors import TemplateError

if TYPE_CHECKING:
    from edgellm.tokenizer import Tokenizer


class ConversationTemplate:
    """The usual template of a model, with what is given to it in every turn.

    Args:
        tokenizer: the model's tokenizer.
        think: whether the model is to think; None leaves it to the template.
        variables: further variables by their names (transformers' ``chat_template_kwargs``).
        tools: schemas of what the model may call; none: it is not told of tools.

    Attributes:
        variables: all that is given, the switch for thinking too.
        markers: the texts around the model's thinking, None where none are known.

    Raises:
        TemplateError: the template has no such variable, or no switch for thinking.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        think: bool | None = None,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self.variables: dict[str, Any] = dict(variables or {})
        self._has_tools = bool(tools or self.variables.get("tools"))
        if think is not None or self.variables:
            names = tokenizer.template_names(tools=self._has_tools)
            self.variables = template_variables(names, think=think, given=self.variables)
        if tools:
            if "tools" not in tokenizer.template_names(tools=True).variables:
                raise TemplateError(
                    "the chat template has no place for tools",
                    hint="leave tools out, or choose a model that calls them, such as Qwen3",
                )
            self.variables["tools"] = list(tools)
        self.markers: Markers | None = find_markers(
            tokenizer.chat_template or "", lambda text: tokenizer.token_to_id(text) is not None
        )
        self._marker_tokens: dict[int, str] = {}
        if self.markers is not None:
            self._marker_tokens = self.special_tokens_in(self.markers.texts())
        self._written_tokens = dict(self._marker_tokens)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """Return the text of a conversation, thinking left out as the template says.

        Arguments of tool calls are shown as they are, and as JSON to a template that wants a text.

        Args:
            messages: checked ones.
            add_generation_prompt: whether the text ends where the model's answer begins.

        Raises:
            TemplateError: the template fails, or refuses the conversation.
        """

        def write(shown: Sequence[Mapping[str, Any]]) -> str:
            return self._tokenizer.render(
                shown, add_generation_prompt=add_generation_prompt, **self.variables
            )

        visible = list(map(self._visible, messages))
        if not any("tool_calls" in message for message in visible):
            return write(visible)
        try:
            return write(list(map(_with_arguments, visible)))
        except TemplateError:
            return write(visible)

    def thinking_filter(self, prompt: str) -> ThinkingFilter | None:
        """Return a filter for the reply to a prompt; None where the model has no thinking."""
        if self.markers is None:
            return None
        return ThinkingFilter(
            self.markers,
            opened=prompt.rstrip().endswith(self.markers.start),
            hidden=list(self._marker_tokens.values()),
        )

    def written(self, token_id: int | None) -> str:
        """Return how a special token is written that is part of a marker; others have no text."""
        if token_id is None:
            return ""
        return self._written_tokens.get(token_id, "")

    def write_tokens(self, tokens: Mapping[int, str]) -> None:
        """Let further special tokens be written."""
        self._written_tokens.update(tokens)

    def special_tokens_in(self, texts: Collection[str]) -> dict[int, str]:
        """Return the special tokens that some texts are made of, and how they are written."""
        tokens = {item: self._tokenizer.id_to_token(item) for item in self._tokenizer.special_ids}
        return {
            item: token
            for item, token in tokens.items()
            if token and any(token in text for text in texts)
        }

    def _visible(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.markers is None or "reasoning_content" not in message:
            return message
        names = self._tokenizer.template_names(tools=self._has_tools)
        return visible_reply(message, names, self.markers)


def _with_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message whose tool calls have arguments by their names, where these are JSON."""
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        function = dict(call["function"])
        with suppress(ValueError):
            function["arguments"] = json.loads(function["arguments"])
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}
