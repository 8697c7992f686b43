"""Conversations in Anthropic's form, as messages that chat templates know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from edgellm.chat import ToolChoice
from edgellm.server.answering.answers import Conversation
from edgellm.server.answering.sampling_fields import read_effort
from edgellm.server.anthropic.field_tables import OUTPUT_CONFIG, TOOL
from edgellm.server.http.api_error import ApiError, refused
from edgellm.server.http.fields import Fields

MAX_MESSAGES = 100_000
MAX_BLOCKS = 10_000
MAX_TOOLS = 512
MAX_EDITS = 100
MAX_BUDGET = 1 << 27

CALL_PREFIX = "toolu_"
"""Of the ids of calls; templates get them without it, as some take ids of one length alone."""

BETWEEN = "\n\n"
"""Between texts that stand alone: blocks of the system prompt, turns that become one."""

Message = dict[str, Any]


def read_conversation(fields: Fields) -> Conversation:
    """Return what a request asks; raises ApiError where it does not say so."""
    given = fields.objects("messages", at_most=MAX_MESSAGES)
    if not given:
        raise refused("messages", "messages is empty; give at least one")
    _check_edits(fields)
    messages: list[Message] = []
    system = _texts(fields, "system")
    if system:
        messages.append({"role": "system", "content": BETWEEN.join(system)})
    for message in given:
        messages += _messages(message)
    if messages[-1]["role"] == "assistant":
        raise refused(
            "messages",
            "the last message is the assistant's, and this server continues none (prefill); "
            "end with a message of the user",
        )
    think, effort, budget = _thinking(fields)
    choice, is_parallel = _tool_choice(fields)
    return Conversation(
        messages=_joined(messages),
        tools=_tools(fields),
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        think=think,
        effort=effort,
        thinking_budget=budget,
    )


def shows_thinking(fields: Fields) -> bool:
    """Return whether the text of thinking is to be shown."""
    thinking = fields.object("thinking")
    if thinking is None:
        return True
    return thinking.choice("display", ("summarized", "omitted"), "summarized") != "omitted"


def _check_edits(fields: Fields) -> None:
    """Refuse to shorten a conversation; its template leaves out earlier thinking anyway."""
    management = fields.object("context_management")
    if management is None:
        return
    for edit in management.objects("edits", at_most=MAX_EDITS):
        edit.allow("type", "clear_thinking_20251015", instead="send a shorter conversation")


def _thinking(fields: Fields) -> tuple[bool | None, str | None, int | None]:
    """Return whether to think, how much, and how many tokens."""
    config = fields.object("output_config")
    effort = None
    if config is not None:
        OUTPUT_CONFIG.check(config)
        _, effort = read_effort(config, "effort")
    thinking = fields.object("thinking")
    if thinking is None:
        return None, effort, None
    kinds = ("enabled", "disabled", "adaptive", "between_tools")
    kind = thinking.choice("type", kinds, "")
    if kind == "adaptive":
        return None, effort, None
    if kind == "enabled":
        most = (fields.whole("max_tokens", 1, MAX_BUDGET) or MAX_BUDGET) - 1
        budget = thinking.whole("budget_tokens", 1, most)
        if budget is None:
            raise thinking.wrong("budget_tokens", "a whole number below max_tokens")
        return True, effort, budget
    return kind != "disabled", effort, None


def _texts(fields: Fields, name: str) -> list[str]:
    """Return the texts of a field that may be one text, or blocks of text."""
    given = fields.any(name)
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    texts = []
    for block in fields.objects(name, at_most=MAX_BLOCKS):
        if block.any("type") != "text":
            raise _unsupported(block)
        texts.append(block.text("text"))
    return texts


def _messages(message: Fields) -> list[Message]:
    """Return the messages of one: results of tools are messages of their own."""
    role = message.choice("role", ("user", "assistant", "system"), "")
    if role == "assistant":
        return [_reply(message)]
    messages: list[Message] = []
    if role == "system" or isinstance(message.any("content"), str):
        return [{"role": role, "content": "".join(_texts(message, "content"))}]
    for block in message.objects("content", at_most=MAX_BLOCKS):
        match block.any("type"):
            case "text":
                messages.append({"role": "user", "content": block.text("text")})
            case "tool_result":
                content = "".join(_texts(block, "content"))
                if block.flag("is_error"):
                    content = f"Error: {content}"
                call_id = block.text("tool_use_id").removeprefix(CALL_PREFIX)
                messages.append({"role": "tool", "content": content, "tool_call_id": call_id})
            case _:
                raise _unsupported(block)
    if not messages:
        raise message.wrong("content", "a text, or blocks")
    return _joined(messages, between="")


def _reply(message: Fields) -> Message:
    """Return a reply, its thinking and its calls beside its text."""
    reply: Message = {"role": "assistant", "content": ""}
    if isinstance(message.any("content"), str):
        reply["content"] = message.text("content")
        return reply
    for block in message.objects("content", at_most=MAX_BLOCKS):
        match block.any("type"):
            case "text":
                reply["content"] += block.text("text")
            case "thinking":
                thinking = reply.get("reasoning_content", "") + block.text("thinking")
                reply["reasoning_content"] = thinking
            case "redacted_thinking":
                pass  # nobody but its author can read it
            case "tool_use":
                given = block.object("input")
                if given is None:
                    raise block.wrong("input", "an object")
                arguments = json.dumps(given.values(), ensure_ascii=False)
                function = {"name": block.text("name"), "arguments": arguments}
                call_id = block.text("id").removeprefix(CALL_PREFIX)
                call = {"id": call_id, "type": "function", "function": function}
                reply.setdefault("tool_calls", []).append(call)
            case _:
                raise _unsupported(block)
    return reply


def _joined(messages: Iterable[Message], between: str = BETWEEN) -> list[Message]:
    """Return messages in which those of a user that follow one another are one."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if message["role"] == last.get("role") == "user":
            last["content"] += between + message["content"]
        else:
            joined.append(dict(message))
    return joined


def _tools(fields: Fields) -> Sequence[dict[str, Any]]:
    """Return the tools in OpenAI's form."""
    tools = []
    for tool in fields.objects("tools", at_most=MAX_TOOLS):
        TOOL.check(tool)
        schema = tool.object("input_schema")
        if schema is None:
            raise tool.wrong("input_schema", "a JSON schema")
        function: dict[str, Any] = {"name": tool.text("name"), "parameters": schema.values()}
        if tool.flag("strict"):
            function["strict"] = True
        if tool.has("description"):
            function["description"] = tool.text("description")
        tools.append({"type": "function", "function": function})
    return tools


def _tool_choice(fields: Fields) -> tuple[ToolChoice, bool]:
    """Return which tool is to be called, in OpenAI's words, and whether several may be."""
    choice = fields.object("tool_choice")
    if choice is None:
        return "auto", True
    is_parallel = not choice.flag("disable_parallel_tool_use")
    kind = choice.choice("type", ("auto", "any", "tool", "none"), "")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.text("name")}}, is_parallel
    return kind.replace("any", "required"), is_parallel


def _unsupported(block: Fields) -> ApiError:
    kind = block.text("type")
    return refused(
        block.path("type"), f"{block.path('type')} is {kind!r}, which is not supported here"
    )
