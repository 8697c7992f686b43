"""The conversation of a chat completion."""

from __future__ import annotations

from typing import Any

from edgellm.chat.messages import FIELDS, checked_messages
from edgellm.chat_template.template import REASONING_FIELDS
from edgellm.errors import ConfigError
from edgellm.server.answering.answers import Conversation
from edgellm.server.answering.sampling_fields import read_effort
from edgellm.server.http.api_error import refused, with_hint
from edgellm.server.http.fields import Fields
from edgellm.server.openai.field_tables import MESSAGE

MAX_MESSAGES = 10_000
MAX_TOOLS = 512


def read_conversation(fields: Fields) -> Conversation:
    """Return what a request asks; raises ApiError where it does not say so."""
    messages = fields.objects("messages", at_most=MAX_MESSAGES)
    if not messages:
        raise refused("messages", "messages is empty; give at least one")
    tools = fields.objects("tools", at_most=MAX_TOOLS)
    for tool in tools:
        tool.allow("type", "function", instead="give it as a function")
    given = [_message(message) for message in messages]
    try:
        checked_messages(given)
    except ConfigError as error:
        raise refused("messages", with_hint(error)) from None
    variables = fields.object("chat_template_kwargs")
    think, effort = read_effort(fields, "reasoning_effort")
    return Conversation(
        messages=given,
        tools=[tool.values() for tool in tools],
        tool_choice=fields.any("tool_choice", "auto"),
        parallel_tool_calls=fields.flag("parallel_tool_calls", True),
        think=think,
        effort=effort,
        variables=variables.values() if variables is not None else {},
    )


def _message(message: Fields) -> dict[str, Any]:
    """Return a message with the role that chat templates know, without unknown fields."""
    MESSAGE.check(message)
    known = {*FIELDS, *REASONING_FIELDS}
    values = {name: value for name, value in message.values().items() if name in known}
    if values.get("role") == "developer":
        values["role"] = "system"
    if message.has("refusal") and not message.has("content"):
        values["content"] = message.text("refusal")
    return values
