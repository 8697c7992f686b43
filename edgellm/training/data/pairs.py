"""Records of preferences: two answers to one request, of which a person preferred the first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.files.given_path import given_path
from edgellm.row_files.problems import BadRow, Problems
from edgellm.row_files.reading import read_rows
from edgellm.training.data.messages import (
    Message,
    history_of,
    messages_of,
    said,
    shown,
    system_of,
    tools_of,
)
from edgellm.training.data.records import request_of, single_request

EXAMPLE = '{"prompt": "...", "chosen": "...", "rejected": "..."}'
FORMS = f"write a record as {EXAMPLE}, with texts or lists of messages"

ANSWERS = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
)
"""What data sets call the answer that was preferred, and the other."""

DIALOGUE = re.compile(r"(?:^|\n\n)(Human|Assistant):")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
"""A conversation as one text, as Anthropic's hh-rlhf has them."""


@dataclass(frozen=True, slots=True)
class PairRecord:
    """A request and two answers to it.

    Attributes:
        line: of the file, from 1.
        prompt: what both answer.
        chosen: the messages of the answer that was preferred.
        rejected: those of the other.
        instruction: a request of a single turn, and its input, as Alpaca's template has them.
        tools: that the assistant may call, in OpenAI's form, for the chat template.
    """

    line: int
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    instruction: tuple[str, str] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


def read_pairs(path: str | Path) -> list[PairRecord]:
    """Return the pairs of a file: JSON lines, or a list in JSON.

    Raises:
        ConfigError: there is no such file, or it is empty.
        FormatError: it has records that are no pairs; says the lines.
        ReadError: it cannot be read.
    """
    pairs = []
    problems = Problems(given_path(path))
    for row in read_rows(path, EXAMPLE):
        try:
            pairs.append(_pair(row.fields, row.line))
        except BadRow as problem:
            problems.add(row.line, problem)
    problems.raise_found()
    return pairs


def _pair(fields: Mapping[str, Any], line: int) -> PairRecord:
    better, worse = _answers(fields)
    given = fields.get("input")
    if isinstance(given, dict) and "messages" in given:  # as OpenAI's files have it
        fields = given
    prompt, instruction = _prompt(fields)
    if prompt is None and isinstance(better, str) and isinstance(worse, str):
        shared = _shared_text(better, worse)
        if shared and not DIALOGUE.match(better):
            prompt, instruction = (said("user", shared),), (shared, "")
            better, worse = better[len(shared) :], worse[len(shared) :]
    chosen, rejected = _conversation(better, "chosen"), _conversation(worse, "rejected")
    if any(messages[0]["role"] != "assistant" for messages in (chosen, rejected)):
        # whole conversations, beside which a prompt says nothing new
        count = _shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:count], chosen[count:], rejected[count:]
        instruction = single_request(prompt)
    if not prompt:
        raise BadRow("it has no prompt that both answers follow", hint=FORMS)
    return PairRecord(
        line,
        prompt,
        _answer(chosen, "chosen"),
        _answer(rejected, "rejected"),
        instruction,
        tools_of(fields),
    )


def _answers(fields: Mapping[str, Any]) -> tuple[Any, Any]:
    for better, worse in ANSWERS:
        if better in fields and worse in fields:
            return fields[better], fields[worse]
    known = ", ".join(list(fields)[:10]) or "none"
    raise BadRow(f"it has no chosen and rejected, but {known}", hint=FORMS)


def _prompt(
    fields: Mapping[str, Any],
) -> tuple[tuple[Message, ...] | None, tuple[str, str] | None]:
    """Return what is asked, as messages and as a single request; None where nothing says it."""
    for key in ("prompt", "messages", "conversations"):
        if isinstance(fields.get(key), list):
            messages = messages_of(fields[key], key)
            return messages, single_request(messages)
    found = request_of(fields)
    if found is None:
        return None, None
    request, given = found
    if DIALOGUE.match(request):
        turns = _dialogue(request)
        if turns[-1] == said("assistant", ""):  # where the answers follow
            turns = turns[:-1]
        return turns, None
    prompt = (said("user", f"{request}\n\n{given}" if given else request),)
    before = (*system_of(fields), *history_of(fields))
    if before:
        return (*before, *prompt), None
    return prompt, (request, given)


def _conversation(answer: object, name: str) -> tuple[Message, ...]:
    """Return the messages of an answer, or of a conversation that ends with it."""
    if isinstance(answer, str):
        if DIALOGUE.match(answer):
            return _dialogue(answer)
        return (said("assistant", answer),)
    if isinstance(answer, dict):
        answer = [answer]
    if not isinstance(answer, list):
        raise BadRow(f"{name} is {shown(answer)}; it must be a text or messages", hint=FORMS)
    return messages_of(answer, name)


def _dialogue(text: str) -> tuple[Message, ...]:
    _, *parts = DIALOGUE.split(text)
    return tuple(
        said(SPEAKERS[speaker], content.strip())
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    )


def _answer(messages: Sequence[Message], name: str) -> tuple[Message, ...]:
    """Return messages without what follows the last answer. Raises BadRow."""
    ends = [place for place, each in enumerate(messages, 1) if each["role"] == "assistant"]
    if not ends:
        raise BadRow(
            f"{name} holds no answer that the other does not",
            hint="drop the record: it does not say which answer is better",
        )
    return tuple(messages[: ends[-1]])


def _shared(one: Sequence[object], two: Sequence[object]) -> int:
    """Return how many messages or characters both begin with."""
    differ = (place for place, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(one), len(two)))


def _shared_text(one: str, two: str) -> str:
    """Return the whole words that both texts begin with."""
    shared = one[: _shared(one, two)]
    return shared[: max(shared.rfind(" "), shared.rfind("\n"), 0)]
