"""Records of training files: chats, instructions, prompts with completions, and plain texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.files.given_path import given_path
from edgellm.row_files.problems import BadRow, Problems
from edgellm.row_files.reading import read_rows
from edgellm.training.data.messages import (
    Message,
    conversation_in,
    history_of,
    messages_of,
    said,
    shown,
    silent_places,
    system_of,
    text_of,
    tools_of,
)

EXAMPLE = (
    '{"messages": [...]}, {"instruction": "...", "output": "..."}, '
    '{"prompt": "...", "completion": "..."} or {"text": "..."}'
)
FORMS = f"write a record as one of {EXAMPLE}"

ANSWERS = ("completion", "response", "answer", "output", "solution", "target", "targets")
INPUTS = ("input", "context")
"""What an instruction is about: as Alpaca calls it, and as Dolly does."""

PROMPTS = ("prompt", "question", "query", "problem", "input", "inputs")
"""What is asked, where there is no instruction."""

WHOLE = ("prompt", "inputs")
"""Those of them that hold what they are about, too."""


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

    def cut(self, most: int) -> Record:
        """Return it with at most so many characters of each message; a text stays whole."""
        instruction = self.instruction
        if all(len(message["content"]) <= most for message in self.messages):
            return self
        if instruction is not None:
            instruction = instruction[0][:most], instruction[1][:most]
        messages = tuple({**one, "content": one["content"][:most]} for one in self.messages)
        return replace(self, messages=messages, instruction=instruction)


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
            about = [other for other in INPUTS if other != name and fields.get(other) is not None]
            if name in WHOLE or not about:
                return text_of(fields, name), ""
            return text_of(fields, name), text_of(fields, about[0])
    return None


def single_request(messages: Sequence[Message]) -> tuple[str, str] | None:
    """Return the request of messages that are one, as templates of a single turn have it."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"], ""
    return None


def _records(fields: Mapping[str, Any], line: int) -> list[Record]:
    """Return the record of a row, or several of an instruction with several answers."""
    instances = fields.get("instances")
    if isinstance(instances, list) and instances:  # as Self-Instruct has them
        rows = [one for one in instances if isinstance(one, dict)]
        if len(rows) < len(instances):
            raise BadRow(f"instances is {shown(instances)}; each must be an object", hint=FORMS)
        return [_record({**fields, **one}, line) for one in rows]
    return [_record(fields, line)]


def _record(fields: Mapping[str, Any], line: int) -> Record:
    found = conversation_in(fields)
    if found is not None:
        return _conversation(fields, *found, line)
    if "text" in fields and "instruction" not in fields:
        text = text_of(fields, "text")
        if not text:
            raise BadRow("text is empty", hint="drop the record")
        return Record(line, text=text)
    if isinstance(fields.get("prompt"), list):
        return _asked_in_messages(fields, line)
    request = request_of(fields)
    if request is None:
        raise BadRow(f"it has no prompt, but {_known(fields)}", hint=_hint(fields))
    answers = _answers(fields)
    asked, given = request
    prompt = said("user", f"{asked}\n\n{given}" if given else asked)
    before = (*system_of(fields), *history_of(fields))
    # what Alpaca's template has no place for is a conversation
    instruction = request if not before and len(answers) == 1 else None
    return Record(
        line, (*before, prompt, *answers), instruction=instruction, tools=tools_of(fields)
    )


def _conversation(fields: Mapping[str, Any], key: str, found: list[Any], line: int) -> Record:
    if not found:
        return Record(line)  # as some of ShareGPT's are
    messages = list(messages_of(found, key))
    if messages[0]["role"] != "system":
        messages = [*system_of(fields), *messages]
    silent = silent_places(found, len(messages) - len(found))
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()  # nothing after the last answer is learned
    tools = tools_of(fields)
    instruction = single_request(messages[:-1]) if messages and not tools else None
    return Record(line, tuple(messages), instruction=instruction, tools=tools, silent=silent)


def _asked_in_messages(fields: Mapping[str, Any], line: int) -> Record:
    """Return a record whose prompt is a conversation, as TRL has it; the completion is learned."""
    prompt, answers = messages_of(fields["prompt"], "prompt"), _answers(fields)
    tools = tools_of(fields)
    instruction = single_request(prompt) if len(answers) == 1 and not tools else None
    silent = frozenset(range(len(prompt)))
    return Record(line, (*prompt, *answers), instruction=instruction, tools=tools, silent=silent)


def _answers(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return what is answered: a text, or messages without those after the last answer."""
    for name in ANSWERS:
        if name in fields:
            break
    else:
        raise _without_answer(fields)
    given = fields[name]
    if not isinstance(given, list) or not any(isinstance(one, dict) for one in given):
        return (said("assistant", text_of(fields, name)),)
    messages = messages_of(given, name)
    ends = [place for place, one in enumerate(messages, 1) if one["role"] == "assistant"]
    if not ends:
        raise BadRow(f"{name} holds no message of the assistant", hint=FORMS)
    return messages[: ends[-1]]


def _without_answer(fields: Mapping[str, Any]) -> BadRow:
    hint = FORMS
    if {"chosen", "rejected"} <= fields.keys():
        hint = "it is a preference: train with --stage dpo"
    return BadRow(f"it has no {ANSWERS[0]}, but {_known(fields)}", hint=hint)


def _hint(fields: Mapping[str, Any]) -> str:
    """Return what to do about a record of no form that is known."""
    for name, value in fields.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return (
                f"where its records are in {shown(name)}, make a file of them: python -c "
                f"\"import json; print(json.dumps(json.load(open('FILE'))[{shown(name)}]))\" "
                "> RECORDS.json"
            )
    return FORMS


def _known(fields: Mapping[str, Any]) -> str:
    return ", ".join(list(fields)[:10]) or "nothing at all"
