"""Answers to a request, computed side by side: from messages or a prompt to their tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgellm.async_stream import AsyncStream
from edgellm.chat import Chat, ToolChoice, require_chat_template
from edgellm.chat.reply import Turn
from edgellm.chat_template.thinking import SWITCHES
from edgellm.generation.output import Token
from edgellm.generation.prompt import Prompt
from edgellm.generation.stats import Stats
from edgellm.server.answering.metrics import Metrics
from edgellm.server.answering.models import ServedModel
from edgellm.server.answering.state import ServerState
from edgellm.server.answering.thinking_budget import thinking_budget
from edgellm.server.http.api_error import ApiError
from edgellm.settings import Sampling

EFFORT = "reasoning_effort"
"""The variable by which chat templates, such as gpt-oss's, are told how much to think."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation as a request has it, with all that its reply depends on.

    Attributes:
        messages: in OpenAI's form.
        tools: schemas of what it may call.
        tool_choice: whether it has to call some of it, or which, as ``Chat`` has it.
        parallel_tool_calls: whether it may call several at once.
        think: whether it is to think, where its chat template has a switch; None leaves it to
            the template.
        effort: how much it is to think, where its chat template can say so.
        thinking_budget: tokens after which its thinking is ended; None for any number.
        variables: further ones of the chat template.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    think: bool | None = None
    effort: str | None = None
    thinking_budget: int | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


class Answer:
    """One answer on its way: an asynchronous iterator of its tokens.

    Args:
        stream: its tokens.
        metrics: in which its times are counted.
        chat: the conversation that it is a reply in; None for the continuation of a text.

    Attributes:
        prompt_tokens: tokens of its prompt; of a reply alone, which knows them before its end.
    """

    def __init__(
        self,
        stream: AsyncStream,
        metrics: Metrics,
        chat: Chat | None = None,
        *,
        prompt_tokens: int = 0,
    ) -> None:
        self.prompt_tokens: int = prompt_tokens
        self._stream = stream
        self._chat = chat
        self._metrics = metrics
        self._times = metrics.first_token
        self._last_at = time.perf_counter()

    def __aiter__(self) -> AsyncIterator[Token]:
        """Return the tokens."""
        return self

    async def __anext__(self) -> Token:
        """Return the next token; errors are those of ``AsyncStream``."""
        token = await anext(self._stream)
        now = time.perf_counter()
        if token.id is not None:
            self._times.add(now - self._last_at)
            self._times = self._metrics.between_tokens
            self._last_at = now
        if token.finish_reason is not None:
            self._metrics.ends[token.finish_reason] += 1
        return token

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

    def cancel(self) -> None:
        """End it after the token that is being computed; from any thread."""
        self._stream.cancel()

    async def aclose(self) -> None:
        """Give it up, wherever it is."""
        await self._stream.aclose()


async def reply(
    state: ServerState,
    model: ServedModel,
    conversation: Conversation,
    samplings: Sequence[Sampling],
) -> list[Answer]:
    """Return replies in a conversation, which are computed from now on.

    Args:
        state: of the server.
        model: that replies.
        conversation: what it replies to.
        samplings: how the tokens of each are drawn.

    Raises:
        ConfigError, ContextError, TemplateError: as ``Chat.stream`` does.
        QueueFullError, MemoryBudgetError, ClosedError: as ``AsyncLLM.stream`` does.
    """

    def replies() -> Iterator[Answer]:
        chat = _chat(model, conversation)
        for place, sampling in enumerate(samplings):
            if place:
                chat = chat.fork()
            chat.sampling = sampling
            turn = chat.begin(conversation.messages)
            held = _within_budget(turn, conversation.thinking_budget, model)
            stream = model.llm.stream(turn.ids, held, timeout=state.settings.timeout)
            stream = stream.map(turn.add, on_end=turn.end)
            yield Answer(stream, state.metrics, chat, prompt_tokens=len(turn.ids))

    return await asyncio.to_thread(_all_or_none, replies)


async def complete(
    state: ServerState,
    model: ServedModel,
    prompts: Sequence[Prompt],
    samplings: Sequence[Sampling],
) -> list[Answer]:
    """Return continuations of prompts, several of each; the rest as in ``reply``."""

    def continuations() -> Iterator[Answer]:
        for prompt in prompts:
            for sampling in samplings:
                stream = model.llm.stream(prompt, sampling, timeout=state.settings.timeout)
                yield Answer(stream, state.metrics)

    return await asyncio.to_thread(_all_or_none, continuations)


async def count_tokens(model: ServedModel, conversation: Conversation) -> int:
    """Return how many tokens a conversation has; errors are those of ``Chat.count_tokens``."""

    def count() -> int:
        return _chat(model, conversation).count_tokens(conversation.messages)

    return await asyncio.to_thread(count)


def own_end(token: Token) -> Literal["stop", "length"]:
    """Return why an answer ended with its last token.

    Raises:
        ApiError: it has not ended by itself: its time was over, or the server shuts down.
    """
    reason = token.finish_reason
    if reason == "stop" or reason == "length":  # noqa: PLR1714 - mypy narrows it so
        return reason
    if reason == "timeout":
        raise time_is_over()
    raise ApiError(503, "the answer was cancelled by the server", code="cancelled")


def time_is_over() -> ApiError:
    """Return the error of an answer that takes too long."""
    return ApiError(504, "the answer took longer than this server allows", code="timeout")


def _chat(model: ServedModel, conversation: Conversation) -> Chat:
    llm = model.llm.llm
    require_chat_template(llm.tokenizer, model.name)
    known = llm.tokenizer.template_names(tools=bool(conversation.tools)).variables
    think = conversation.think
    if known.isdisjoint(SWITCHES):
        think = None
    variables = dict(conversation.variables)
    if conversation.effort is not None and EFFORT in known:
        variables.setdefault(EFFORT, conversation.effort)
    return llm.chat(
        think=think,
        tools=conversation.tools,
        tool_choice=conversation.tool_choice,
        parallel_tool_calls=conversation.parallel_tool_calls,
        chat_template_kwargs=variables,
    )


def _within_budget(turn: Turn, budget: int | None, model: ServedModel) -> Sampling:
    """Return how the tokens of a turn are drawn where its thinking has a budget."""
    if budget is None:
        return turn.sampling
    limit = thinking_budget(model.llm.tokenizer, turn.ids, budget)
    if limit is None:
        return turn.sampling
    return replace(turn.sampling, logits_processor=limit)


def _all_or_none(begin: Callable[[], Iterator[Answer]]) -> list[Answer]:
    """Return all answers, or end those that have begun where another cannot."""
    answers: list[Answer] = []
    try:
        for answer in begin():
            answers.append(answer)
    except BaseException:
        for answer in answers:
            answer.cancel()
        raise
    return answers


async def tokens_of(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Token]]:
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
    async with aclosing(tokens_of(answers)) as coming:
        async for place, token in coming:
            tokens[place].append(token)
    return tokens
