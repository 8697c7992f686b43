"""A stream: the tokens of one answer as they come, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from edgellm.errors import EdgeLLMError
from edgellm.generation.output import Completion, Token, completion_of
from edgellm.generation.stats import Stats


class Stream(Iterator[Token]):
    """The tokens of one answer as they come; ``LLM.stream`` and ``Chat.stream`` make it.

    It may be read, cancelled and closed from any threads. ``with`` closes it.
    """

    def __init__(self, tokens: Iterator[Token], cancel: Callable[[], None]) -> None:
        self._tokens = tokens
        self._cancel = cancel
        self._given: list[Token] = []
        self._reading = threading.Lock()
        self._transform: Callable[[Token], Token] | None = None
        self._on_end: Callable[[], None] | None = None
        self._ended = False

    def map(
        self, transform: Callable[[Token], Token], *, on_end: Callable[[], None] | None = None
    ) -> Stream:
        """Return this stream, not yet begun, with each token as ``transform`` returns it.

        Args:
            transform: called with each token, in the thread that asks for it.
            on_end: called once, when the last token is given, at an error, or when it is closed.
        """
        self._transform = transform
        self._on_end = on_end
        return self

    def __iter__(self) -> Stream:
        """Return the stream."""
        return self

    def __next__(self) -> Token:
        """Return the next token; raises what ``LLM.stream`` says."""
        with self._reading:
            if self._ended:
                raise StopIteration
            try:
                token = next(self._tokens)
            except BaseException:
                self._end()
                raise
            if self._transform is not None:
                token = self._transform(token)
            self._given.append(token)
            if token.finish_reason is not None:
                self._end()
            return token

    def __enter__(self) -> Stream:
        """Return the stream."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def cancel(self) -> None:
        """End the answer with a last token of the finish reason ``cancelled``; from any thread."""
        self._cancel()

    def close(self) -> None:
        """End the answer without a last token; from any thread, and twice."""
        self._cancel()
        with self._reading:
            self._end()

    @property
    def completion(self) -> Completion:
        """The whole completion, once it has ended. Raises EdgeLLMError before."""
        if not self._given or self._given[-1].finish_reason is None:
            raise EdgeLLMError(
                "the answer has not ended", hint="read the stream to its last token first"
            )
        return completion_of(self._given)

    @property
    def stats(self) -> Stats | None:
        """The cost so far."""
        if not self._given:
            return None
        return self._given[-1].stats

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        close = getattr(self._tokens, "close", None)
        if close is not None:
            close()
        if self._on_end is not None:
            self._on_end()
