"""The tokens of one answer, read in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgellm.device.bound_to_process import BoundToProcess
from edgellm.engine.engine_thread import EngineThread, Inbox
from edgellm.errors import EdgeLLMError
from edgellm.generation.output import Completion, Token, completion_of
from edgellm.generation.stats import Stats

if TYPE_CHECKING:
    from edgellm.async_llm import AsyncLLM


class AsyncStream(BoundToProcess):
    """Yields the tokens of an answer as they come; ``AsyncLLM.stream`` returns it.

    An answer that nobody reads any more ends: where the task that waits for its token is cancelled,
    where ``async for`` is left, at the end of ``async with``.
    """

    def __init__(self, llm: AsyncLLM, engine_thread: EngineThread, inbox: Inbox) -> None:
        self._llm = llm  # which would close its engine, were nobody to hold it
        self._engine_thread = engine_thread
        self._inbox = inbox
        self._tokens: list[Token] = []
        self._is_over = False
        self._transform: Callable[[Token], Token] | None = None
        self._on_end: Callable[[], None] | None = None

    def map(
        self, transform: Callable[[Token], Token], *, on_end: Callable[[], None]
    ) -> AsyncStream:
        """Return this stream with each further token as ``transform`` returns it.

        Args:
            transform: called where the token is read.
            on_end: called once: when the last token was read, or the stream has failed, was closed
                or forgotten.
        """
        self._transform = transform
        self._on_end = on_end
        return self

    def __repr__(self) -> str:
        state = "open"
        if self.stats is not None:
            state = self.completion.finish_reason
        elif self._is_over:
            state = "given up"
        return f"<AsyncStream {state}, {len(self._tokens)} tokens read>"

    def __aiter__(self) -> AsyncStream:
        """Return the stream."""
        return self

    async def __anext__(self) -> Token:
        """Return the next token.

        Raises:
            NotFiniteError: the model's logits are not finite; its weights may be damaged.
            ReadError: while streaming weights.
            ClosedError: the model was closed.
        """
        inbox = self._inbox
        if inbox.waiter is not None:
            raise EdgeLLMError(
                "another task waits for a token of this stream",
                hint="read a stream in one task, or give each task a stream of its own",
            )
        try:
            token = await self._next()
        except BaseException:  # among them that the task was cancelled
            self._give_up()
            raise
        if self._transform is not None:
            token = self._transform(token)
        self._tokens.append(token)
        if token.finish_reason is not None:
            self._end()
        return token

    async def __aenter__(self) -> AsyncStream:
        """Return the stream."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    def __del__(self) -> None:
        """Give up an answer that nobody can read any more."""
        if not self._inbox.ended:
            self._engine_thread.abandon(self._inbox)
        self._end()

    @property
    def completion(self) -> Completion:
        """The whole completion, once it has ended.

        Raises:
            EdgeLLMError: it has not ended, or was given up before its end.
        """
        if self.stats is not None:
            return completion_of(self._tokens)
        if self._is_over:
            raise EdgeLLMError(
                "the answer was given up before its end",
                hint="use cancel and read on to its last token, which closes the completion",
            )
        raise EdgeLLMError(
            "the answer has not ended", hint="read the stream to its last token first"
        )

    @property
    def stats(self) -> Stats | None:
        """The cost, once it has ended."""
        if not self._tokens:
            return None
        return self._tokens[-1].stats

    def cancel(self) -> None:
        """End the answer with a token of the ``finish_reason`` ``cancelled``; from any thread."""
        self._engine_thread.engine.cancel(self._inbox.number)

    async def aclose(self) -> None:
        """Give the answer up; there are no more tokens. May be called twice."""
        self._give_up()

    async def _next(self) -> Token:
        inbox = self._inbox
        try:
            while not inbox.tokens:
                inbox.waiter = waiter = asyncio.get_running_loop().create_future()
                # a token that comes from here on wakes; one that came before is found
                if inbox.ended and not inbox.tokens:
                    error, inbox.error = inbox.error, None
                    raise error or StopAsyncIteration
                if not inbox.tokens:
                    await waiter
        finally:
            inbox.waiter = None
        token = inbox.tokens.popleft()
        if token.error is not None:
            self._tokens.append(token)
            raise token.error
        return token

    def _give_up(self) -> None:
        self._engine_thread.drop(self._inbox)
        self._end()

    def _end(self) -> None:
        """Tell once that there are no more tokens."""
        self._is_over = True
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()
