"""Messages of conversations as data sets have them, in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.chat.messages import FIELDS, checked_messages
from edgellm.errors import ConfigError
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow

ROLES = {"system": "system", "developer": "system"}
ROLES |= dict.fromkeys(("user", "human", "prompter"), "user")
ROLES |= dict.fromkeys(
    ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "function_call"), "assistant"
)
ROLES |= dict.fromkeys(("tool", "function", "observation", "function_response"), "tool")
"""The roles of data sets in our words: OpenAI's, ShareGPT's, and those of calls of tools."""

CALL = "function_call"
"""A role whose text is a call of a tool, and a field that holds one."""

FORM = 'write {"role": "user", "content": "..."}; roles are system, user, assistant, tool'

CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog")
"""Fields that hold a conversation."""

SYSTEM = ("system", "system_prompt")
"""What comes before a conversation or a request, as ShareGPT and OpenOrca have it."""

Message = Mapping[str, Any]
"""A message of a conversation, in OpenAI's form: role, content, calls of tools."""


def conversation_in(fields: Mapping[str, Any]) -> tuple[str, list[Any]] | None:
    """Return the field that holds a conversation, and its messages; None where none does.

    Raises:
        BadRow: what should be a list is none.
    """
    for name in CONVERSATIONS:
        if name in fields:
            found = _listed(fields[name])
            if found is None and name not in CONVERSATIONS[:2]:
                continue  # it may be a field of another meaning
            if found is None:
                raise BadRow(
                    f"{name} is {shown(fields[name])}; it must be a list",
                    hint=f"write a list of messages: {FORM}",
                )
            return name, found
    return None


def messages_of(found: object, name: str = "messages") -> tuple[Message, ...]:
    """Return the messages of a list, their roles in our words.

    Raises:
        BadRow: it is no list of messages.
    """
    listed = _listed(found)
    if not listed:
        raise BadRow(
            f"{name} is {shown(found)}; it must be a list of messages",
            hint=f"write a list of messages: {FORM}",
        )
    return tuple(_message(one, number) for number, one in enumerate(listed, 1))


def said(role: str, content: str) -> Message:
    """Return a message that is a text."""
    return {"role": role, "content": content}


def silent_places(found: Sequence[Any], begin: int) -> frozenset[int]:
    """Return the places of messages that have the weight 0, as OpenAI's fine-tuning has it.

    Args:
        found: the messages as a file has them.
        begin: the place of the first one.

    Raises:
        BadRow: a weight is neither 0 nor 1.
    """
    silent = set()
    for number, one in enumerate(found, 1):
        weight = one.get("weight")
        if weight is not None and weight not in (0, 1):
            raise BadRow(
                f"message {number} has the weight {shown(weight)}; it must be 0 or 1",
                hint="0 is read and not learned, 1 is learned",
            )
        if weight == 0:
            silent.add(begin + number - 1)
    return frozenset(silent)


def system_of(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the message that a field of its own puts before the others, if there is one."""
    for name in SYSTEM:
        if fields.get(name):
            return (said("system", text_of(fields, name)),)
    return ()


def tools_of(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a record, in OpenAI's form.

    Raises:
        BadRow: they are no list of objects.
    """
    name = "tools" if fields.get("tools") else "functions"  # as it was before there were tools
    given = fields.get(name) or ()
    tools = _listed(given) if isinstance(given, str | list) else given
    if tools is None or not all(isinstance(one, dict) for one in tools):
        raise BadRow(
            f"{name} is {shown(given)}; it must be a list of objects",
            hint="write tools in OpenAI's form, or drop the field",
        )
    if name == "functions":
        return tuple({"type": "function", "function": one} for one in tools)
    return tuple(tools)


def history_of(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the turns before a request, which ``history`` has as pairs of texts.

    Raises:
        BadRow: they are not.
    """
    found = fields.get("history")
    if not found:
        return ()
    messages: list[Message] = []
    for pair in found if isinstance(found, list) else [found]:
        match pair:
            case [str(asked), str(answer)]:
                messages += [said("user", asked), said("assistant", answer)]
            case _:
                raise BadRow(
                    f"history is {shown(found)}; it must be a list of pairs of texts",
                    hint='write [["a question", "its answer"], ...], or give messages',
                )
    return tuple(messages)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be a text. Raises BadRow."""
    value = fields[name]
    if not isinstance(value, str):
        raise BadRow(f"{name} is {shown(value)}; it must be a text", hint="mend it, or drop it")
    return value


def shown(value: object) -> str:
    """Return a value as a file has it, safe to print and not longer than a line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return quoted(value)


def _listed(found: object) -> list[Any] | None:
    """Return a list, which many files have as JSON in a text; None: it is none."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, list) else None


def _message(one: object, number: int) -> Message:
    if not isinstance(one, dict):
        raise BadRow(f"message {number} is {shown(one)}; it must be an object", hint=FORM)
    given = one.get("role") or one.get("from")
    role = ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise BadRow(f"message {number} has the role {shown(given)}", hint=FORM)
    # files have many a field of their own beside those of a message
    own = {field: one[field] for field in FIELDS if field in one}
    own = {"content": one.get("value"), **own, "role": role}
    if given == CALL:
        own |= {"content": None, "tool_calls": _calls(own["content"], number)}
    elif one.get(CALL):
        own["tool_calls"] = _calls([one[CALL]], number)
    try:
        [message] = checked_messages([own])
    except ConfigError as error:
        raise BadRow(f"message {number}: {error.message}", hint=error.hint or FORM) from error
    return message


def _calls(found: object, number: int) -> list[Mapping[str, Any]]:
    """Return calls of tools, each an object with a name and arguments, or one of them as JSON."""
    try:
        calls = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError):
        calls = None
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in calls
    ):
        raise BadRow(
            f"message {number} is {shown(found)}; it must be a call of a tool",
            hint='write {"name": "f", "arguments": {}}, as JSON',
        )
    return [
        {"function": {"name": one["name"], "arguments": one.get("arguments") or {}}}
        for one in calls
    ]
