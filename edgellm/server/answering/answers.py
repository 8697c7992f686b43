"""Answers to a request, computed side by side: from messages or a prompt to their tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from edgellm.async_stream import AsyncStream
from edgellm.chat import Chat
from edgellm.generation.output import Token
from edgellm.generation.stats import Stats
from edgellm.server.answering.models import ServedModel
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation as a request has it, with all that its reply depends on.

    Attributes:
        messages: in OpenAI's form.
        tools: schemas of what it may call.
        think: whether it is to think; None leaves it to its chat template.
        variables: further ones of the chat template.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    think: bool | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


class Answer:
    """One answer on its way: an asynchronous iterator of its tokens.

    Args:
        stream: its tokens.
        chat: the conversation that it is a reply in; None for the continuation of a text.
    """

    def __init__(self, stream: AsyncStream, chat: Chat | None = None) -> None:
        self._stream = stream
        self._chat = chat

    def __aiter__(self) -> AsyncIterator[Token]:
        """Return the tokens."""
        return self._stream

    @property
    def stats(self) -> Stats:
        """The cost, once it has ended."""
        stats = self._stream.stats
        assert stats is not None, "it has ended"
        return stats

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls in it, in OpenAI's form, once it has ended."""
        if self._chat is None or not self._chat.tools or not self._chat.messages:
            return []
        calls: list[dict[str, Any]] = self._chat.messages[-1].get("tool_calls", [])
        return calls

    async def aclose(self) -> None:
        """Give it up, wherever it is."""
        await self._stream.aclose()


class OpenChat:
    """A conversation that is ready to be answered: its prompt is rendered and counted.

    ``open_chat`` makes it.

    Attributes:
        model: that answers.
        ids: the prompt.
        room: tokens that the context has after it.
    """

    def __init__(self, model: ServedModel, conversation: Conversation) -> None:
        self.model = model
        self._conversation = conversation
        self._chat = model.llm.llm.chat(
            think=conversation.think,
            tools=conversation.tools,
            chat_template_kwargs=conversation.variables,
        )
        self._turn = self._chat.begin(conversation.messages)
        self.ids: list[int] = self._turn.ids
        self.room: int = model.llm.llm.context - len(self.ids)

    def answer(self, sampling: Sampling, timeout: float | None = None) -> Answer:
        """Return an answer, which is computed from now on; errors as ``AsyncLLM.stream`` has them.

        May be called several times, for several answers.
        """
        chat, turn = self._chat, self._turn
        self._chat = chat.fork()
        self._turn = self._chat.begin(self._conversation.messages)
        stream = self.model.llm.stream(turn.ids, sampling, timeout=timeout)
        return Answer(stream.map(turn.add, on_end=turn.end), chat)


async def open_chat(model: ServedModel, conversation: Conversation) -> OpenChat:
    """Return a conversation that is ready to be answered; its rendering holds nobody up.

    Raises:
        ConfigError, ContextError, TemplateError: as ``Chat.stream`` does.
    """
    return await asyncio.to_thread(OpenChat, model, conversation)


async def tokens_of(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Token]]:
    """Yield the tokens of some answers as they come, with the answers' places.

    Where this iterator is closed, or one of them fails, all of them are given up.
    """
    if len(answers) == 1:
        try:
            async for token in answers[0]:
                yield 0, token
        finally:
            await answers[0].aclose()
        return
    waiting = {asyncio.ensure_future(anext(aiter(one))): place for place, one in enumerate(answers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = waiting.pop(task)
                token = task.result()
                yield place, token
                if token.finish_reason is None:
                    waiting[asyncio.ensure_future(anext(aiter(answers[place])))] = place
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for answer in answers:
            await answer.aclose()


async def read_all(answers: Sequence[Answer]) -> list[list[Token]]:
    """Return the tokens of some answers, once all have ended."""
    tokens: list[list[Token]] = [[] for _ in answers]
    async with aclosing(tokens_of(answers)) as coming:  # type: ignore[type-var]
        async for place, token in coming:
            tokens[place].append(token)
    return tokens
