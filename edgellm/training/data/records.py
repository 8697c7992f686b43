"""Records of training files: chats, instructions, prompts with completions, and plain texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.chat.messages import FIELDS, checked_messages
from edgellm.errors import ConfigError
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow, Problems
from edgellm.row_files.reading import read_rows

EXAMPLE = (
    '{"messages": [...]}, {"instruction": "...", "output": "..."}, '
    '{"prompt": "...", "completion": "..."} or {"text": "..."}'
)
FORMS = f"write a record as one of {EXAMPLE}"

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
ROLES |= {"system": "system", "tool": "tool", "model": "assistant", "bot": "assistant"}

Message = Mapping[str, Any]
"""A message of a conversation, in OpenAI's form: role, content, calls of tools."""

ANSWERS = ("completion", "response", "answer", "output", "solution")
PROMPTS = ("prompt", "question", "query", "problem")
INPUTS = ("input", "context")
"""What an instruction is about: as Alpaca calls it, and as Dolly does."""

SYSTEM = ("system", "system_prompt")
"""What comes before a conversation or a request, as ShareGPT and OpenOrca have it."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record, of which something is learned.

    Attributes:
        line: of the file, from 1.
        messages: of a conversation, of which the assistant's are learned; empty of a text.
        text: that is learned as it is; "" of a conversation.
        instruction: the request of a single turn, and its input, as Alpaca's template has them.
        tools: that the assistant may call, in OpenAI's form, for the chat template.
        silent: places of the assistant's messages that are read and not learned.
    """

    line: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    instruction: tuple[str, str] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    silent: frozenset[int] = frozenset()


def read_records(path: str | Path) -> list[Record]:
    """Return the records of a file: JSON lines, or a list in JSON; of plain text, its documents.

    Raises:
        ConfigError: there is no such file, or it is empty.
        FormatError: it has records that nothing is learned from; says the lines.
        ReadError: it cannot be read.
    """
    records = []
    problems = Problems(given_path(path))
    for row in read_rows(path, EXAMPLE):
        try:
            records += _records(row.fields, row.line)
        except BadRow as problem:
            problems.add(row.line, problem)
    problems.raise_found()
    return records


def request_of(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what a record asks in a single turn, and its input; None where nothing is asked.

    Raises:
        BadRow: it is no text.
    """
    if "instruction" in fields:
        given = next((name for name in INPUTS if fields.get(name) is not None), None)
        return text_of(fields, "instruction"), "" if given is None else text_of(fields, given)
    for name in PROMPTS:
        if name in fields:
            return text_of(fields, name), ""
    return None


def messages_of(found: object, name: str = "messages") -> tuple[Message, ...]:
    """Return the messages of a list, their roles in our words.

    Raises:
        BadRow: it is no list of messages.
    """
    if not isinstance(found, list) or not found:
        raise BadRow(f"{name} is {quoted(found)}; it must be a list", hint=FORMS)
    messages = []
    for number, one in enumerate(found, 1):
        role = None
        if isinstance(one, dict):
            role = ROLES.get(str(one.get("role") or one.get("from")))
        if role is None:
            raise BadRow(
                f"message {number} is {quoted(one)}",
                hint='write {"role": "user", "content": "..."}; roles are system, user, assistant',
            )
        # files have many a field of their own beside those of a message
        own = {field: one[field] for field in FIELDS if field in one}
        try:
            messages += checked_messages([{"content": one.get("value"), **own, "role": role}])
        except ConfigError as error:
            raise BadRow(f"message {number}: {error.message}", hint=error.hint or FORMS) from error
    return tuple(messages)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be a text. Raises BadRow."""
    value = fields[name]
    if not isinstance(value, str):
        raise BadRow(f"{name} is {quoted(value)}; it must be a text", hint="mend it, or drop it")
    return value


def _records(fields: Mapping[str, Any], line: int) -> list[Record]:
    """Return the record of a row, or several of an instruction with several answers."""
    instances = fields.get("instances")
    if isinstance(instances, list) and instances:  # as Self-Instruct has them
        rows = [one for one in instances if isinstance(one, dict)]
        if len(rows) < len(instances):
            raise BadRow(f"instances is {quoted(instances)}; each must be an object", hint=FORMS)
        return [_record({**fields, **one}, line) for one in rows]
    return [_record(fields, line)]


def _record(fields: Mapping[str, Any], line: int) -> Record:
    for key in ("messages", "conversations"):
        if key in fields:
            return _conversation(fields, key, line)
    if "text" in fields and "instruction" not in fields:
        text = text_of(fields, "text")
        if not text:
            raise BadRow("text is empty", hint="drop the record")
        return Record(line, text=text)
    request = request_of(fields)
    if request is None:
        raise BadRow(f"it has no prompt, but {_known(fields)}", hint=FORMS)
    answer = text_of(fields, _answer(fields))
    asked, given = request
    prompt = f"{asked}\n\n{given}" if given else asked
    system = system_of(fields)
    if system:
        return Record(line, messages=(*system, *_turn(prompt, answer)))
    return Record(line, messages=_turn(prompt, answer), instruction=request)


def _conversation(fields: Mapping[str, Any], key: str, line: int) -> Record:
    messages = list(messages_of(fields[key], key))
    if messages[0]["role"] != "system":
        messages = [*system_of(fields), *messages]
    first = len(messages) - len(fields[key])
    silent = frozenset(
        place
        for place, one in enumerate(fields[key], first)
        if one.get("weight") == 0  # as files for OpenAI's fine-tuning have it
    )
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()  # nothing after the last answer is learned
    return Record(line, messages=tuple(messages), tools=_tools(fields), silent=silent)


def system_of(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return the message that a field of its own puts before the others, if there is one."""
    for name in SYSTEM:
        if fields.get(name):
            return ({"role": "system", "content": text_of(fields, name)},)
    return ()


def _tools(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    tools = fields.get("tools") or ()
    if isinstance(tools, str):  # many files have the list as JSON
        try:
            tools = json.loads(tools)
        except ValueError:
            tools = None
    if not isinstance(tools, list | tuple) or not all(isinstance(one, dict) for one in tools):
        raise BadRow(
            f"tools is {quoted(fields['tools'])}; it must be a list of objects",
            hint="write tools in OpenAI's form, or drop the field",
        )
    return tuple(tools)


def _turn(prompt: str, answer: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})


def _answer(fields: Mapping[str, Any]) -> str:
    for name in ANSWERS:
        if name in fields:
            return name
    hint = FORMS
    if {"chosen", "rejected"} <= fields.keys():
        hint = "it is a preference: train with --stage dpo"
    raise BadRow(f"it has no {ANSWERS[0]}, but {_known(fields)}", hint=hint)


def _known(fields: Mapping[str, Any]) -> str:
    return ", ".join(list(fields)[:10]) or "none"
