"""Records of training files: chats, instructions, prompts with completions, and plain texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

Message = Mapping[str, str]
"""A message of a conversation: its role and its content."""

ANSWERS = ("completion", "response", "answer", "output")
PROMPTS = ("prompt", "question")


@dataclass(frozen=True, slots=True)
class Record:
    """A record, of which something is learned.

    Attributes:
        line: of the file, from 1.
        messages: of a conversation, of which the assistant's are learned; empty of a text.
        text: that is learned as it is; "" of a conversation.
        instruction: the request of a single turn, and its input, as Alpaca's template has them.
    """

    line: int
    messages: tuple[Message, ...] = ()
    text: str = ""
    instruction: tuple[str, str] | None = None


def read_records(path: str | Path) -> list[Record]:
    """Return the records of a file: JSON lines, or a list in JSON; of plain text, its documents.

    Raises:
        ConfigError: there is no such file.
        FormatError: it holds no record, or records that nothing is learned from; says the lines.
        ReadError: it cannot be read.
    """
    records = []
    problems = Problems(given_path(path))
    for row in read_rows(path, EXAMPLE):
        try:
            records.append(_record(row.fields, row.line))
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
        given = ""
        if fields.get("input") is not None:
            given = text_of(fields, "input")
        return text_of(fields, "instruction"), given
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
        role, content = None, None
        if isinstance(one, dict):
            role = ROLES.get(str(one.get("role") or one.get("from")))
            content = one.get("content", one.get("value"))
        if role is None or not isinstance(content, str):
            raise BadRow(
                f"message {number} is {quoted(one)}",
                hint='write {"role": "user", "content": "..."}; roles are system, user, assistant',
            )
        messages.append({"role": role, "content": content})
    return tuple(messages)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be a text. Raises BadRow."""
    value = fields[name]
    if not isinstance(value, str):
        raise BadRow(f"{name} is {quoted(value)}; it must be a text", hint="mend it, or drop it")
    return value


def _record(fields: Mapping[str, Any], line: int) -> Record:
    for key in ("messages", "conversations"):
        if key in fields:
            messages = list(messages_of(fields[key]))
            while messages and messages[-1]["role"] != "assistant":
                messages.pop()  # nothing after the last answer is learned
            return Record(line, messages=tuple(messages))
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
    return Record(line, messages=_turn(prompt, answer), instruction=request)


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
