"""Conversations in a model's tokens, as its chat template or another writes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from edgellm.chat_template.conversation import ConversationTemplate
from edgellm.errors import EdgeLLMError, FormatError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.control_text import ControlText
from edgellm.training.data.records import Record

Template = Literal["chat", "alpaca", "plain"]
"""How a request is written: as the model's chat template or Alpaca's has it, or as it is."""

Part = tuple[list[int], list[bool]]
"""Token ids of a sequence, and which of them are learned."""

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
"""The prompts of Stanford's Alpaca, which many data sets are made for."""


def conversation(
    record: Record,
    tokenizer: Tokenizer,
    template: Template,
    *,
    control: ControlText,
    prompt: int = 0,
) -> list[Part]:
    """Return a conversation as a sequence, or as several, with an answer each.

    There are several where a chat template writes earlier turns in another way once later ones
    follow (it drops what was thought, for example): what was learned of one text would be asked for
    after another.

    Args:
        record: the conversation.
        tokenizer: of the model.
        template: that it is written in.
        control: what makes tokens of texts.
        prompt: its first messages, of which nothing is learned.

    Raises:
        FormatError: a chat template refuses it, or another has no place for it; says its line.
        TokenizerError: its text cannot be told from a control token.
    """
    if template != "chat":
        return [_single_turn(record, tokenizer, template, control)]
    answers = []
    for place, message in enumerate(record.messages):
        if message["role"] == "assistant":
            before = text_of(record, tokenizer, place, prompt=True)
            whole = text_of(record, tokenizer, place + 1, prompt=False)
            if not whole.startswith(before):
                raise FormatError(
                    f"line {record.line}: the chat template begins an answer otherwise than "
                    "it ends the prompt before it",
                    hint="use --template alpaca or plain",
                )
            is_learned = place >= prompt and place not in record.silent
            answers.append((before, whole, is_learned))
    if any(not later.startswith(whole) for (_, whole, _), (later, _, _) in pairwise(answers)):
        return [_joined([answer], control) for answer in answers if answer[2]]
    return [_joined(answers, control)]


def _joined(answers: Sequence[tuple[str, str, bool]], control: ControlText) -> Part:
    """Return answers one after another.

    Args:
        answers: of each the text before it, the text with it, and whether it is learned.
        control: what makes tokens of texts.
    """
    ids: list[int] = []
    learned: list[bool] = []
    text = ""
    for before, whole, is_learned in answers:
        asked, answer = _parted(before[len(text) :], whole[len(before) :], control, begins=False)
        ids += [*asked, *answer]
        learned += [False] * len(asked) + [is_learned] * len(answer)
        text = whole
    return ids, learned


def text_of(record: Record, tokenizer: Tokenizer, count: int, *, prompt: bool) -> str:
    """Return the first messages of a conversation as the chat template has them.

    Args:
        record: the conversation.
        tokenizer: of the model.
        count: messages.
        prompt: whether an answer is to follow.

    Raises:
        FormatError: the template refuses it; says its line.
    """
    messages = record.messages[:count]
    try:
        if record.tools or any("tool_calls" in message for message in messages):
            template = ConversationTemplate(tokenizer, tools=record.tools)
            return template.render(messages, add_generation_prompt=prompt)
        return tokenizer.render(messages, add_generation_prompt=prompt)
    except EdgeLLMError as error:
        raise FormatError(f"line {record.line}: {error.message}", hint=error.hint) from error


def _single_turn(
    record: Record, tokenizer: Tokenizer, template: Template, control: ControlText
) -> Part:
    if record.instruction is None:
        raise FormatError(
            f"line {record.line} is a conversation, which the template {template!r} has no place "
            "for",
            hint="use --template chat with a model that has a chat template",
        )
    instruction, given = record.instruction
    if template == "plain":
        prompt = f"{instruction}\n\n{given}" if given else instruction
    elif given:
        prompt = WITH_INPUT.format(instruction=instruction, input=given)
    else:
        prompt = WITHOUT_INPUT.format(instruction=instruction)
    asked, answer = _parted(prompt, record.messages[-1]["content"], control, begins=True)
    end = min(tokenizer.eos_token_ids, default=None)
    if end is not None:
        answer.append(end)
    return [*asked, *answer], [False] * len(asked) + [True] * len(answer)


def _parted(
    prompt: str, answer: str, control: ControlText, *, begins: bool
) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt, and of the answer that follows it as one text with it."""
    asked = control.encode(prompt, add_special_tokens=begins)
    whole = control.encode(prompt + answer, add_special_tokens=begins)
    if whole[: len(asked)] == asked:
        return asked, whole[len(asked) :]
    # the answer's beginning would join the prompt's end: a model that answers cannot do that
    return asked, control.encode(answer, add_special_tokens=False)
