"""A reply, as it comes token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from edgellm.chat.messages import Message
from edgellm.chat.tool_use.tool_calls import ToolCallFilter
from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.generation.output import Token
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of a conversation, before its reply is computed.

    Attributes:
        ids: the prompt.
        sampling: how the reply's tokens are drawn.
        add: returns a token of the reply as its reader is to get it.
        end: takes the reply into the conversation, as far as it has come.
    """

    ids: list[int]
    sampling: Sampling
    add: Callable[[Token], Token]
    end: Callable[[], None]


class Reply:
    """A reply that comes token by token, its thinking parted from its answer.

    Attributes:
        ids: its tokens.
        finish_reason: once it has ended.
        written: all of it, with the markers between thinking and answer.
        thinking: without blanks around it.
        answer: the rest, without tool calls.
        tool_calls: in OpenAI's form.
    """

    def __init__(
        self,
        template: ConversationTemplate,
        prompt: str,
        tool_filter: ToolCallFilter | None = None,
    ) -> None:
        self._template = template
        self._filter = template.thinking_filter(prompt)
        self._tool_filter = tool_filter
        self.ids: list[int] = []
        self.finish_reason: str | None = None
        self.written: str = ""
        self.thinking: str = ""
        self.answer: str = ""
        self.tool_calls: list[dict[str, Any]] = []

    def add(self, token: Token) -> Token:
        """Return a token that has text for what is sure of the answer, and of the thinking."""
        self.finish_reason = token.finish_reason
        if token.id is not None:
            self.ids.append(token.id)
        text = token.text + self._template.written(token.id)
        self.written += text
        thinking, answer = "", text
        if self._filter is not None:
            thinking, answer = self._filter.add(text)
            if token.finish_reason is not None:
                answer += self._filter.finish(whole=token.finish_reason == "stop")
        if self._tool_filter is not None:
            answer = self._tool_filter.add(answer)
            if token.finish_reason is not None:
                rest, self.tool_calls = self._tool_filter.finish(
                    whole=token.finish_reason == "stop"
                )
                answer += rest
        self.thinking += thinking
        self.answer += answer
        return replace(token, text=answer, thinking=thinking)

    def message(self) -> Message:
        """Return it as a message."""
        message: Message = {"role": "assistant", "content": self.answer}
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.tool_calls:
            # what is between text and call is for the template to write
            message["content"] = self.answer.rstrip()
            message["tool_calls"] = self.tool_calls
        return message
