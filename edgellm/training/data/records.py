"""Records of training files: chats, instructions, prompts with completions, and plain texts."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import ConfigError, EdgeLLMError, FormatError
from edgellm.files.bounded import read_bounded
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import parse_json, quoted

MAX_BYTES = 512 << 20
MAX_ITEMS = 1_000_000

ONE_A_LINE = (
    'write one JSON object per line: {"messages": [...]}, {"instruction": "...", "output": "..."}, '
    '{"prompt": "...", "completion": "..."} or {"text": "..."}'
)

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
ROLES |= {"system": "system", "tool": "tool", "model": "assistant", "bot": "assistant"}

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
    messages: tuple[Mapping[str, str], ...] = ()
    text: str = ""
    instruction: tuple[str, str] | None = None


def read_records(path: str | Path) -> list[Record]:
    """Return the records of a file: JSON lines, or a list in JSON.

    Raises:
        ConfigError: there is no such file.
        FormatError: it holds no record, or a record that nothing is learned from; says the line.
        ReadError: it cannot be read.
    """
    found = given_path(path)
    if not found.is_file():
        raise ConfigError(f"there is no file {found}", hint=ONE_A_LINE)
    data = read_bounded(found, MAX_BYTES).removeprefix(codecs.BOM_UTF8)
    records = [_record(fields, line, found) for line, fields in _objects(data, found)]
    if not records:
        raise FormatError(f"{found} holds no record", hint=ONE_A_LINE)
    return records


def _objects(data: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if data.lstrip()[:1] == b"[":
        yield from _listed(data, path)
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, _parsed(line, number, path)


def _listed(data: bytes, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the objects of a JSON list, each with the line that it begins in."""
    text = _decoded(data, path)
    decoder = json.JSONDecoder()
    place = text.index("[") + 1
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        if place >= len(text) or text[place] == "]":
            return
        line = text.count("\n", 0, place) + 1
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}, line {line}: {error}", hint=ONE_A_LINE) from error
        yield line, _parsed(text[place:end].encode(), line, path)
        place = end


def _parsed(data: bytes, line: int, path: Path) -> Mapping[str, Any]:
    _decoded(data, path, line)
    try:
        return parse_json(data, f"{path}, line {line}", max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
    except EdgeLLMError as error:
        raise FormatError(error.message, hint=ONE_A_LINE) from error


def _decoded(data: bytes, path: Path, line: int = 1) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise FormatError(
            f"{path}, line {line} is not UTF-8 at byte {error.start} of it", hint="save it as UTF-8"
        ) from error


def _record(fields: Mapping[str, Any], line: int, path: Path) -> Record:
    where = f"{path}, line {line}"
    for key in ("messages", "conversations"):
        if key in fields:
            return Record(line, messages=_messages(fields[key], where))
    if "instruction" in fields:
        request = _text(fields, "instruction", where)
        given = ""
        if fields.get("input") is not None:
            given = _text(fields, "input", where)
        answer = _text(fields, _first(fields, ANSWERS, where), where)
        prompt = f"{request}\n\n{given}" if given else request
        return Record(line, messages=_turn(prompt, answer), instruction=(request, given))
    if "text" in fields:
        text = _text(fields, "text", where)
        if not text:
            raise FormatError(f"{where}: text is empty", hint="drop the record")
        return Record(line, text=text)
    prompt = _text(fields, _first(fields, PROMPTS, where), where)
    answer = _text(fields, _first(fields, ANSWERS, where), where)
    return Record(line, messages=_turn(prompt, answer), instruction=(prompt, ""))


def _turn(prompt: str, answer: str) -> tuple[Mapping[str, str], ...]:
    return ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})


def _messages(found: object, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(found, list) or not found:
        raise FormatError(
            f"{where}: messages is {quoted(found)}; it must be a list", hint=ONE_A_LINE
        )
    messages = []
    for number, one in enumerate(found, 1):
        role, content = None, None
        if isinstance(one, dict):
            role = ROLES.get(one.get("role") or one.get("from") or "")
            content = one.get("content", one.get("value"))
        if role is None or not isinstance(content, str):
            raise FormatError(
                f"{where}: message {number} is {quoted(one)}",
                hint='write {"role": "user", "content": "..."}; roles are system, user, assistant',
            )
        messages.append({"role": role, "content": content})
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()  # nothing after the last answer is learned
    return tuple(messages)


def _first(fields: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    for name in names:
        if name in fields:
            return name
    known = ", ".join(list(fields)[:10]) or "none"
    raise FormatError(f"{where}: it has no {names[0]}, but {known}", hint=ONE_A_LINE)


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise FormatError(
            f"{where}: {name} is {quoted(value)}; it must be a text", hint="mend it, or drop it"
        )
    return value
