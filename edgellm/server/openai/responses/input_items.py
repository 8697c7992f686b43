"""Items of a request for a response, as messages that chat templates know."""

from __future__ import annotations

from typing import Any

from edgellm.server.answering.answers import Conversation
from edgellm.server.answering.sampling_fields import read_effort
from edgellm.server.http.api_error import refused
from edgellm.server.http.fields import Fields
from edgellm.server.openai.field_tables import ITEM, REASONING, RESPONSES_TOOL

MAX_ITEMS = 100_000
MAX_PARTS = 10_000
MAX_TOOLS = 512

Message = dict[str, Any]


def read_conversation(fields: Fields) -> Conversation:
    """Return what a request asks; raises ApiError where it does not say so."""
    messages: list[Message] = []
    if fields.has("instructions"):
        messages.append({"role": "system", "content": fields.text("instructions")})
    given = fields.any("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    else:
        items = fields.objects("input", at_most=MAX_ITEMS)
        if not items:
            raise fields.wrong("input", "a text, or a list of items")
        for item in items:
            _add(messages, item)
    think, effort = None, None
    reasoning = fields.object("reasoning")
    if reasoning is not None:
        REASONING.check(reasoning)
        think, effort = read_effort(reasoning, "effort")
    return Conversation(
        messages=messages,
        tools=_tools(fields),
        tool_choice=fields.any("tool_choice", "auto"),
        parallel_tool_calls=fields.flag("parallel_tool_calls", True),
        think=think,
        effort=effort,
    )


def _add(messages: list[Message], item: Fields) -> None:
    """Add an item to a conversation: one of the assistant's may continue its last message."""
    ITEM.check(item)
    match item.any("type", "message"):
        case "message":
            _add_message(messages, item)
        case "reasoning":
            thinking = "".join(_texts(item, "content"))
            if thinking:  # else it is encrypted, and was another model's
                messages.append({"role": "assistant", "content": "", "reasoning_content": thinking})
        case "function_call":
            function = {"name": item.text("name"), "arguments": item.text("arguments")}
            call = {"id": item.text("call_id"), "type": "function", "function": function}
            _assistant(messages).setdefault("tool_calls", []).append(call)
        case "function_call_output":
            content = "".join(_texts(item, "output"))
            call_id = item.text("call_id")
            messages.append({"role": "tool", "content": content, "tool_call_id": call_id})
        case kind:
            raise refused(item.path("type"), f"items of the type {kind!r} are not supported here")


def _add_message(messages: list[Message], item: Fields) -> None:
    role = item.choice("role", ("user", "assistant", "system", "developer"), "")
    text = "".join(_texts(item, "content"))
    if role == "assistant":
        last = _assistant(messages)
        if last["content"] or "tool_calls" in last:
            messages.append({"role": "assistant", "content": text})
        else:
            last["content"] = text
        return
    if role == "developer":
        role = "system"
    if role == "system" and messages and messages[-1]["role"] == "system":
        # many templates take one system message alone
        messages[-1]["content"] += f"\n\n{text}"
        return
    messages.append({"role": role, "content": text})


def _assistant(messages: list[Message]) -> Message:
    """Return the assistant's message at the end, a new one where there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _texts(item: Fields, name: str) -> list[str]:
    """Return the texts of a content: of a text, or of parts that are texts."""
    given = item.any(name)
    if given is None or isinstance(given, str):
        return [given or ""]
    texts = []
    for part in item.objects(name, at_most=MAX_PARTS):
        kind = part.any("type")
        if kind == "refusal":
            texts.append(part.text("refusal"))
        elif kind in {"input_text", "output_text", "reasoning_text", "text"}:
            texts.append(part.text("text"))
        else:
            raise refused(part.path("type"), f"parts of the type {kind!r} are not supported here")
    return texts


def _tools(fields: Fields) -> list[dict[str, Any]]:
    """Return the tools in the form of chat completions."""
    tools = []
    for tool in fields.objects("tools", at_most=MAX_TOOLS):
        RESPONSES_TOOL.check(tool)
        known = ("name", "description", "parameters", "strict")
        function = {name: tool.any(name) for name in known if tool.has(name)}
        function["name"] = tool.text("name")
        tools.append({"type": "function", "function": function})
    return tools
