"""A thread that steps an engine while it has sequences, and hands each reader its tokens."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Unpack

from edgellm.engine.engine import Engine
from edgellm.errors import ClosedError, EdgeLLMError
from edgellm.generation.output import Token
from edgellm.settings import Sampling, SamplingFields

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

CLOSED = "the model was closed"


class Inbox:
    """The tokens of one sequence on their way from the engine's thread to an event loop.

    Neither side waits for the other: each step is a single operation on a deque or an attribute.
    What a reader leaves unread costs some hundred bytes per token, ``max_tokens`` of them at most.

    Attributes:
        number: the number of the sequence.
        tokens: tokens that were not read yet.
        error: why there is no last token.
        ended: whether nothing more comes; set when the last token is there.
        is_known: whether ``EngineThread.submit`` has returned it.
        waiter: of the reader, set before it looks for tokens once more and waits.
        woken: the waiter that was woken last.
    """

    __slots__ = ("ended", "error", "is_known", "number", "tokens", "waiter", "woken")

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.tokens: deque[Token] = deque()
        self.error: Exception | None = None
        self.ended: bool = False
        self.is_known: bool = False
        self.waiter: Future[None] | None = None
        self.woken: Future[None] | None = None


class EngineThread:
    """Steps an engine while it has sequences. The thread begins with the first of them.

    Its methods may be called from any thread.

    Args:
        engine: the engine; nobody else steps it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._inboxes: dict[int, Inbox] = {}
        self._abandoned: deque[int] = deque()
        self._closed = False

    def submit(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None,
        timeout: float | None,
        **settings: Unpack[SamplingFields],
    ) -> Inbox:
        """Let a sequence join; return where its tokens will be.

        Raises what ``Engine.submit`` raises.
        """
        number = self.engine.submit(prompt, sampling, timeout=timeout, **settings)
        # before this line the thread may have had its first tokens, or its last
        inbox = self._inboxes.setdefault(number, Inbox(number))
        inbox.is_known = True
        if inbox.ended:
            self._inboxes.pop(number, None)
        if self._closed:
            raise ClosedError(CLOSED)
        self._start()
        return inbox

    def drop(self, inbox: Inbox) -> None:
        """End a sequence whose tokens nobody wants any more."""
        inbox.ended = True
        inbox.tokens.clear()
        self.engine.cancel(inbox.number)

    def abandon(self, inbox: Inbox) -> None:
        """Do as ``drop`` does, before the next step; a finalizer may call it: it takes no lock."""
        inbox.ended = True
        self._abandoned.append(inbox.number)

    def close(self) -> None:
        """Close the engine, whose readers get ClosedError, and wait until the thread has ended."""
        self._closed = True
        if self._thread is threading.current_thread():
            return  # called by the garbage collector, and within a step: it ends with it
        self._fail(ClosedError(CLOSED))  # the step that is under way may stop between two layers
        self.engine.close()
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # a daemon: for others Python waits before the model quits, which ends this one
                self._thread = threading.Thread(
                    target=self._run, name="edgellm-engine", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while not self._closed and self.engine.wait():
            while self._abandoned:
                self.engine.cancel(self._abandoned.popleft())
            try:
                tokens = self.engine.step()
            except Exception as error:  # whoever waits for a token gets it, whatever it is
                self._fail(error)
            except BaseException as error:  # it would end this thread, and readers would wait on
                failure = EdgeLLMError(
                    f"a function that was called in a step raised {type(error).__name__}",
                    hint="raise an Exception there: it ends its own answer alone",
                )
                failure.__cause__ = error
                self._fail(failure)
            else:
                self._deliver(tokens)
        self._closed = True
        self.engine.close()
        self._fail(ClosedError(CLOSED))

    def _deliver(self, tokens: Iterable[tuple[int, Token]]) -> None:
        """Put tokens where they are read, and wake those who wait for them."""
        inboxes = []
        for number, token in tokens:
            inbox = self._inboxes.setdefault(number, Inbox(number))
            if not inbox.ended:
                inbox.tokens.append(token)
                inboxes.append(inbox)
            if token.finish_reason is not None:
                inbox.ended = True
                if inbox.is_known:
                    self._inboxes.pop(number, None)
        self._wake(inboxes)

    def _fail(self, error: Exception) -> None:
        """End all sequences; those that wait for one get the error."""
        inboxes = [inbox for inbox in self._inboxes.copy().values() if not inbox.ended]
        for inbox in inboxes:
            inbox.error = error
            inbox.ended = True
            self.engine.cancel(inbox.number)
        self._wake(inboxes)

    def _wake(self, inboxes: Iterable[Inbox]) -> None:
        """Wake those who wait for tokens, with one call a loop."""
        asleep: dict[AbstractEventLoop, list[Inbox]] = defaultdict(list)
        for inbox in inboxes:
            waiter = inbox.waiter
            if waiter is not None and waiter is not inbox.woken:
                inbox.woken = waiter
                asleep[waiter.get_loop()].append(inbox)
        for loop, sleepers in asleep.items():
            waiters = [inbox.woken for inbox in sleepers]
            try:
                loop.call_soon_threadsafe(_resolve, waiters)
            except RuntimeError:  # the loop was closed, and nobody will read on
                for inbox in sleepers:
                    self.drop(inbox)


def _resolve(waiters: Iterable[Future[None] | None]) -> None:
    for waiter in waiters:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
