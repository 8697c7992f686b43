"""A loaded model for asyncio: many answers side by side, each read in a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, Unpack
from weakref import finalize

from edgellm.async_chat import AsyncChat
from edgellm.async_stream import AsyncStream
from edgellm.chat import Chat
from edgellm.device.bound_to_process import BoundToProcess
from edgellm.engine.engine_stats import EngineStats, KVBytes
from edgellm.engine.engine_thread import EngineThread
from edgellm.errors import ClosedError, ConfigError
from edgellm.generation.output import Completion
from edgellm.generation.prompt import Prompt
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.runtime.loader import LoadProgress
from edgellm.scoring.embeddings import Pooling
from edgellm.scoring.scoring_model import Embedding
from edgellm.setting_values import callback, shown
from edgellm.settings import LoadFields, LoadSettings, Sampling, SamplingFields
from edgellm.settings.argument_names import check_names
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _async_chat(
    make: Callable[Concatenate[LLM, Arguments], Chat],
) -> Callable[Concatenate[AsyncLLM, Arguments], AsyncChat]:
    """Return a method with the arguments of ``LLM.chat`` that returns an ``AsyncChat``."""

    @wraps(make)
    def chat(
        self: AsyncLLM, /, *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> AsyncChat:
        return AsyncChat(self, make(self.llm, *arguments, **keywords))

    chat.__doc__ = "Return a conversation; arguments and errors are those of ``LLM.chat``."
    return chat


@check_names
class AsyncLLM(BoundToProcess):
    """A loaded model whose answers are read in tasks, side by side in one engine.

    Tasks of several event loops may share it. One thread computes, from the first answer to
    ``aclose``; the event loop is never held up. While answers are under way, those of ``llm``
    itself wait, and the other way round. ``async with`` closes it.

    Args:
        llm: the model, which ``aclose`` leaves open; ``load`` makes one that it closes.
        max_queue: answers that may wait for others to end; beyond that, ``stream`` raises
            QueueFullError. None for any number.
        at_once: maximum number of answers computed side by side; None for as many as fit into
            memory.

    Attributes:
        llm: the model.
        tokenizer: the model's tokenizer.
    """

    def __init__(
        self, llm: LLM, *, max_queue: int | None = None, at_once: int | None = None
    ) -> None:
        if not isinstance(llm, LLM):
            raise ConfigError(f"llm is {shown(llm)}; it must be a model that load returned")
        self.llm = llm
        self.tokenizer: Tokenizer = llm.tokenizer
        self._owns_llm = False
        self._engine = llm.engine(max_queue=max_queue, at_once=at_once)
        self._engine_thread = EngineThread(self._engine)
        # not at the exit, where the model has quit, and its thread waits for the end of the process
        finalize(self, self._engine_thread.close).atexit = False

    @classmethod
    async def load(
        cls,
        model: str | Path,
        settings: LoadSettings | None = None,
        *,
        progress: LoadProgress | None = None,
        max_queue: int | None = None,
        at_once: int | None = None,
        **keywords: Unpack[LoadFields],
    ) -> AsyncLLM:
        """Load a model without holding up the event loop; ``aclose`` closes it.

        The other arguments and the errors are those of ``edgellm.load``; ``progress`` is called in
        the event loop. When it raises, or the task is cancelled, loading ends.
        """
        callback("progress", progress)
        loop = asyncio.get_running_loop()
        given_up = threading.Event()
        failures: list[Exception] = []

        def tell(done: int, total: int) -> None:
            try:
                if progress is not None and not failures:
                    progress(done, total)
            except Exception as error:
                failures.append(error)
                given_up.set()

        def report(done: int, total: int) -> None:
            if given_up.is_set():
                raise ClosedError("loading was given up")
            if progress is not None:
                loop.call_soon_threadsafe(tell, done, total)

        try:
            llm = await _in_thread(partial(load, model, settings, progress=report, **keywords))
        except asyncio.CancelledError:
            given_up.set()
            raise
        except ClosedError:
            if failures:
                raise failures[0] from None
            raise
        if failures:
            llm.close()
            raise failures[0]
        opened = cls(llm, max_queue=max_queue, at_once=at_once)
        opened._owns_llm = True
        return opened

    def __repr__(self) -> str:
        return f"<AsyncLLM {self.running} running, {self.waiting} waiting: {self.llm!r}>"

    async def __aenter__(self) -> AsyncLLM:
        """Return the model."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    @property
    def running(self) -> int:
        """Answers that are being computed."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """Answers that wait until others have ended."""
        return self._engine.waiting

    @property
    def max_queue(self) -> int | None:
        """Maximum number of answers that wait; None for any number."""
        return self._engine.max_queue

    @property
    def stats(self) -> EngineStats:
        """The cost of all answers so far."""
        return self._engine.stats

    @property
    def kv_bytes(self) -> KVBytes:
        """The bytes of the answers' KV caches."""
        return self._engine.kv_bytes

    def stream(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> AsyncStream:
        """Return the answer to a prompt as a stream; it is computed from now on.

        It returns at once. Nothing is held up by an answer that is not read.

        Args:
            prompt: a text (``Tokenizer.encode_prompt``) or token ids.
            sampling: how tokens are drawn; instead of it, or on top of it, its fields as keywords.
            timeout: seconds from now until the last token, waiting included; that token then has
                the ``finish_reason`` ``timeout``. None for any time.
            settings: fields of ``Sampling``.

        Raises:
            ConfigError: a setting is out of range, or beams are asked for.
            ContextError: the prompt does not fit the context.
            MemoryBudgetError: the budget has no room for its KV cache, even alone.
            QueueFullError: ``max_queue`` answers wait already.
            ClosedError: the model was closed.
        """
        inbox = self._engine_thread.submit(prompt, sampling, timeout, **settings)
        return AsyncStream(self, self._engine_thread, inbox)

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        timeout: float | None = None,
        **settings: Unpack[SamplingFields],
    ) -> Completion:
        """Return the whole completion of a prompt; arguments and errors as ``stream`` has them."""
        stream = self.stream(prompt, sampling, timeout=timeout, **settings)
        async for _ in stream:
            pass
        return stream.completion

    async def embed(
        self, texts: Iterable[Prompt], *, pooling: Pooling = "mean", normalize: bool = True
    ) -> npt.NDArray[np.float32]:
        """Return one vector (E,) per text; arguments and errors are those of ``LLM.embed``.

        It waits until no answer is under way. Where the task is cancelled, it ends.
        """
        work = Embedding(self.llm)
        compute = partial(work.compute, texts, pooling=pooling, normalize=normalize)
        try:
            return await _in_thread(compute)
        finally:
            work.cancel()

    chat = _async_chat(LLM.chat)

    async def aclose(self) -> None:
        """End all answers and the thread that computes them; readers get ClosedError.

        Closes the model if ``AsyncLLM.load`` has loaded it. May be called twice.
        """
        await _in_thread(self._close)

    def _close(self) -> None:
        self._engine_thread.close()
        if self._owns_llm:
            self.llm.close()


async def _in_thread(function: Callable[[], Result]) -> Result:
    """Return what a function returns, called in a thread that ends with it."""
    pool = ThreadPoolExecutor(1, "edgellm-async")
    result = asyncio.get_running_loop().run_in_executor(pool, function)
    try:
        return await result
    finally:
        # a task that was cancelled does not wait for what goes on
        pool.shutdown(wait=result.done() and not result.cancelled())
