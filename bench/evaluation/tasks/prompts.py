"""Prompts: the same examples before every question of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgellm.bench.evaluation.tasks.kinds.kind import Way
from edgellm.bench.evaluation.tasks.rows.question import Question
from edgellm.bench.evaluation.tasks.templates import PromptTemplate

BETWEEN = "\n\n"
"""Between examples."""

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question as a model gets it.

    Attributes:
        question: that it asks.
        context: instruction, examples and question, without a blank at its end; "" of a chat.
        continuations: the options with the blank before them, bare in a chat; the text of a kind
            that reads; none of a kind that generates.
        messages: the same as a chat, which a chat template puts into one text; else none.
    """

    question: Question
    context: str = ""
    continuations: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """The prompts of a run.

    Attributes:
        prompts: one for each question, in their order.
        shots: the examples.
        block: instruction and examples: the text with which every prompt begins.
        template: of a question.
        chat: whether they are chats.
        stops: texts that end an answer.
        max_tokens: of an answer.
    """

    prompts: tuple[Prompt, ...]
    shots: tuple[Question, ...]
    block: str
    template: str
    chat: bool
    stops: tuple[str, ...]
    max_tokens: int


class Prompter:
    """Renders questions after a block of examples.

    Args:
        template: of a question.
        instruction: that comes first; "" for none.
        shots: the examples.
        way: how the model answers.
        chat: whether messages are wanted.
    """

    def __init__(
        self,
        template: PromptTemplate,
        instruction: str,
        shots: Sequence[Question],
        *,
        way: Way,
        chat: bool,
    ) -> None:
        self._template = template
        self._instruction = instruction
        self._way = way
        self._chat = chat
        self._examples = [(self._item(shot), shot.target) for shot in shots]
        self.block: str = self._block()

    def prompt(self, question: Question) -> Prompt:
        """Return the prompt of a question."""
        if self._way == "read":
            return Prompt(question=question, continuations=(question.target,))
        body, gap = _parted(self._item(question))
        if self._chat:
            return Prompt(
                question=question,
                messages=(*self._turns(), {"role": "user", "content": self._first(body)}),
                continuations=question.options,
            )
        if self._way == "options":
            continuations = tuple(f"{gap}{option}" for option in question.options)
            return Prompt(question=question, context=self.block + body, continuations=continuations)
        return Prompt(question=question, context=self.block + body + gap.rstrip(" \t"))

    def _item(self, question: Question) -> str:
        return self._template.render(question.shown, question.line, chat=self._chat)

    def _block(self) -> str:
        parts = []
        if self._instruction:
            parts.append(self._instruction)
        for item, target in self._examples:
            body, gap = _parted(item)
            parts.append(f"{body}{gap}{target}")
        return "".join(f"{part}{BETWEEN}" for part in parts)

    def _turns(self) -> list[Message]:
        turns: list[Message] = []
        for item, target in self._examples:
            body, _ = _parted(item)
            if not turns:
                body = self._with_instruction(body)
            turns.append({"role": "user", "content": body})
            turns.append({"role": "assistant", "content": target})
        return turns

    def _first(self, body: str) -> str:
        if self._examples:
            return body
        return self._with_instruction(body)

    def _with_instruction(self, body: str) -> str:
        # not a system message: some chat templates refuse it
        if self._instruction:
            return f"{self._instruction}{BETWEEN}{body}"
        return body


def _parted(item: str) -> tuple[str, str]:
    """Return a rendered question and the blank after it, which belongs to the answer."""
    body = item.rstrip()
    return body, item[len(body) :] or " "
