"""The tokens of one answer, read in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from edgellm.engine.engine_thread import EngineThread, Inbox
from edgellm.errors import EdgeLLMError
from edgellm.generation.output import Completion, Token, completion_of
from edgellm.generation.stats import Stats

if TYPE_CHECKING:
    from edgellm.async_llm import AsyncLLM


class AsyncStream:
    """Yields the tokens of an answer as they come; ``AsyncLLM.stream`` returns it.

    An answer that nobody reads any more ends: where the task that waits for its token is cancelled,
    where ``async for`` is left, at the end of ``async with``.
    """

    def __init__(self, llm: AsyncLLM, engine_thread: EngineThread, inbox: Inbox) -> None:
        self._llm = llm  # which would close its engine, were nobody to hold it
        self._engine_thread = engine_thread
        self._inbox = inbox
        self._tokens: list[Token] = []

    def __repr__(self) -> str:
        return f"<AsyncStream {len(self._tokens)} tokens read>"

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
            while not inbox.tokens:
                inbox.waiter = waiter = asyncio.get_running_loop().create_future()
                # a token that comes from here on wakes; one that came before is found
                if inbox.ended and not inbox.tokens:
                    self._raise_end()
                if not inbox.tokens:
                    await waiter
        except asyncio.CancelledError:
            self._engine_thread.drop(inbox)
            raise
        finally:
            inbox.waiter = None
        token = inbox.tokens.popleft()
        if token.error is not None:
            raise token.error
        self._tokens.append(token)
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

    @property
    def completion(self) -> Completion:
        """The whole completion, once it has ended. Raises EdgeLLMError before."""
        if self.stats is None:
            raise EdgeLLMError(
                "the answer has not ended", hint="read the stream to its last token first"
            )
        return completion_of(self._tokens)

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
        self._engine_thread.drop(self._inbox)

    def _raise_end(self) -> NoReturn:
        error, self._inbox.error = self._inbox.error, None
        if error is not None:
            raise error
        raise StopAsyncIteration
