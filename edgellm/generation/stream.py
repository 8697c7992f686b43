"""A stream: the tokens of one answer, as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from edgellm.device.bound_to_process import BoundToProcess
from edgellm.device.place import Place
from edgellm.errors import EdgeLLMError
from edgellm.generation.completer import Answer
from edgellm.generation.output import Completion, FinishReason, Token, completion_of
from edgellm.generation.stats import Stats


class Stream(BoundToProcess, Iterator[Token]):
    """The tokens of one answer, as they come; ``LLM.stream`` and ``Chat.stream`` return it.

    It takes its place in line when its first token is asked for. It is read, cancelled and closed
    from any threads, and ``with`` closes it. While nobody reads it, others that wait for the model
    go first; when it is read again, it continues with the same tokens.

    Args:
        answer: the answer.
        place: of the answer, in front of the model.
    """

    def __init__(self, answer: Answer, place: Place) -> None:
        self._answer = answer
        self._place = place
        self._reading = threading.RLock()
        self._read: list[Token] = []
        self._is_over = False
        self._was_stopped = False
        self._transform: Callable[[Token], Token] | None = None
        self._on_end: Callable[[], object] | None = None

    def map(
        self, transform: Callable[[Token], Token], *, on_end: Callable[[], object] | None = None
    ) -> Stream:
        """Return this stream with each further token as ``transform`` returns it.

        Args:
            transform: called in the thread that asks for the token.
            on_end: called once: when the last token was taken, or the stream has failed, was closed
                or forgotten.
        """
        self._transform = transform
        self._on_end = on_end
        return self

    def __repr__(self) -> str:
        state = "open"
        if self._is_over:
            state = self.completion.finish_reason
        return f"<Stream {state}, {len(self._read)} tokens read>"

    def __iter__(self) -> Stream:
        """Return the stream."""
        return self

    def __next__(self) -> Token:
        """Return the next token, once it is there. Raises what ``LLM.stream`` says."""
        token = None
        with self._reading:
            self._place.require_outside_step()  # asking for a token there ends nothing
            if self._is_over:
                raise StopIteration
            try:
                with self._place.reading():
                    token = self._next()
                if token is not None:
                    if self._transform is not None:
                        token = self._transform(token)
                    self._read.append(token)
            except BaseException:
                self._end()
                raise
            if token is None or token.finish_reason is not None:
                self._end()
        if token is None:
            raise StopIteration
        return token

    def __enter__(self) -> Stream:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Free what it holds, where nobody closed it."""
        if not self._is_over:
            self._is_over = True
            self._answer.stop()
            self._place.abandon()
            if self._on_end is not None:
                self._on_end()

    def cancel(self) -> None:
        """End this answer alone, with a last token of the ``finish_reason`` ``cancelled``.

        May be called from any thread, at any time: before the first token is asked for, and while
        the stream waits for the model.
        """
        self._place.cancel()

    def close(self) -> None:
        """End this answer without a last token, and free what it holds.

        May be called twice, from any thread. A thread that asks for a token meanwhile gets
        StopIteration. It waits for the step that is being computed, unless called from within it.
        """
        self._answer.stop()
        self._place.close()
        with self._reading:
            self._end()

    @property
    def completion(self) -> Completion:
        """The tokens that were read, as a whole, once the stream has ended or was closed.

        One that was closed before its end was ``cancelled``.

        Raises:
            EdgeLLMError: it has not ended.
        """
        if not self._is_over:
            raise EdgeLLMError(
                "the answer has not ended", hint="read its tokens to the last one, or close it"
            )
        if self._read and self._read[-1].finish_reason is not None:
            return completion_of(self._read)
        reason: FinishReason = "cancelled"
        error = None
        if self._answer.failure is not None:
            reason = "error"
            if isinstance(self._answer.failure, EdgeLLMError):
                error = self._answer.failure
        text = "".join(token.text for token in self._read)
        return Completion(text, tuple(self._read), reason, self._answer.stats, error)

    @property
    def stats(self) -> Stats:
        """The cost so far."""
        return self._answer.stats

    def _next(self) -> Token | None:
        """Return the next token; None where there is none any more."""
        answer, place = self._answer, self._place
        while not place.closed:
            is_stopped = place.cancelled or place.is_late
            if is_stopped and not self._was_stopped and answer.failure is None:
                self._was_stopped = True
                answer.stop()
                place.leave()
                answer.end(place.end_reason)
            if answer.ready:
                return answer.ready.popleft()
            if answer.failure is not None:
                raise answer.failure
            place.advance()
        return None

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._answer.stop()
        self._place.close()
        if self._on_end is not None:
            self._on_end()
