"""The messages of a conversation, in OpenAI's form, checked where they come in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.chat_template.template import REASONING_FIELDS
from edgellm.errors import ConfigError
from edgellm.setting_values import choice, listed, require_text, shown

Message = dict[str, Any]
"""``role`` and ``content``; what else there may be is in ``FIELDS``."""

ROLES = ("system", "user", "assistant", "tool")

FIELDS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")
"""Thinking is called as in the servers of vLLM and llama.cpp, the rest as in OpenAI's."""


def checked_messages(messages: object) -> list[Message]:
    """Return messages with plain texts, and the arguments of tool calls as JSON.

    Fields that are None or an empty list are left out, as OpenAI's clients send many.

    Raises:
        ConfigError: one of them is not a message.
    """
    allowed = 'a list of messages such as {"role": "user", "content": "Hello"}'
    if isinstance(messages, Mapping):
        messages = [messages]
    return [_checked(message) for message in listed("messages", messages, allowed)]


def split_exchanges(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Return the system messages, and the exchanges: a user's message and all that answers it."""
    system: list[Message] = []
    exchanges: list[list[Message]] = []
    for message in messages:
        if message["role"] == "system":
            system.append(message)
        elif message["role"] == "user" or not exchanges:
            exchanges.append([message])
        else:
            exchanges[-1].append(message)
    return system, exchanges


def _checked(message: object) -> Message:
    if not isinstance(message, Mapping):
        raise ConfigError(
            f"a message is {shown(message)}, which is not a mapping",
            hint='give its role and content: {"role": "user", "content": "Hello"}',
        )
    given = {
        name: value
        for name, value in message.items()
        if not (value is None or _is_empty_list(value))
    }
    for name in REASONING_FIELDS:
        if name in given:
            given.setdefault("reasoning_content", given.pop(name))
    for name in given:
        if name not in FIELDS:
            raise ConfigError(
                f"a message has {shown(name)}, which is not a field of messages",
                hint=f"its fields are {', '.join(FIELDS)}",
            )
    checked: Message = {"role": choice("a message's role", given.get("role"), ROLES)}
    checked["content"] = _text_of(given.get("content"), given)
    for name in ("reasoning_content", "tool_call_id", "name"):
        if name in given:
            checked[name] = require_text(f"a message's {name}", given[name])
    if "tool_calls" in given:
        allowed = "a list of tool calls"
        calls = listed("a message's tool_calls", given["tool_calls"], allowed)
        checked["tool_calls"] = [_checked_call(call) for call in calls]
    return checked


def _is_empty_list(value: object) -> bool:
    return isinstance(value, list) and not value


def _text_of(content: object, message: Mapping[str, Any]) -> str:
    """Return the text of a content: of a text, or of a list of parts that are texts."""
    if isinstance(content, str):
        return content
    parts = []
    if content is not None:
        parts = listed("a message's content", content, "a text, or a list of parts")
    if not parts:
        if message["role"] == "assistant":
            return ""
        raise ConfigError(
            f"a message of the {message['role']} has no content",
            hint='give it a text: {"role": "user", "content": "Hello"}',
        )
    texts = []
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": str(kind)} if kind != "text":
                raise ConfigError(
                    f"a message has a part of type {shown(kind)}",
                    hint="only text is supported; leave out images and audio",
                )
            case _:
                raise ConfigError(
                    f"a part of a message's content is {shown(part)}",
                    hint='it must be {"type": "text", "text": "Hello"}',
                )
    return "".join(texts)


def _checked_call(call: object) -> dict[str, Any]:
    """Return a tool call in OpenAI's form; arguments may be given as they are, or as JSON."""
    match call:
        case {"function": {"name": str(name), **rest}, **around}:
            pass
        case _:
            raise ConfigError(
                f"a tool call is {shown(call)}",
                hint='it must be {"function": {"name": "f", "arguments": "{}"}}, as a reply has it',
            )
    arguments = rest.get("arguments", {})
    if isinstance(arguments, Mapping):
        try:
            arguments = json.dumps(arguments, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the arguments of a call of {name} are not JSON: {error}",
                hint="give texts, numbers, lists and dictionaries",
            ) from error
    require_text(f"the arguments of a call of {name}", arguments)
    checked: dict[str, Any] = {}
    if "id" in around:
        checked["id"] = require_text("the id of a tool call", around["id"])
    return {**checked, "type": "function", "function": {"name": name, "arguments": arguments}}
