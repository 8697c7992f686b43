"""An engine: many sequences side by side, a step at a time."""

from __future__ import annotations

import math
import sys
import threading
from collections import abc
from contextlib import contextmanager
from dataclasses import replace
from typing import Unpack

from edgellm.console.units import size
from edgellm.device.bound_to_process import BoundToProcess
from edgellm.device.place import MAX_TIMEOUT, deadline_after
from edgellm.engine.engine_stats import EngineStats, KVBytes
from edgellm.engine.scheduling.context import EngineContext
from edgellm.engine.scheduling.scheduler import Scheduler
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.engine.step_runner import StepRunner
from edgellm.errors import ConfigError, EdgeLLMError, MemoryBudgetError
from edgellm.generation.output import Token
from edgellm.generation.prompt import token_ids
from edgellm.generation.stats import Progress
from edgellm.sampling.processors import require_known_tokens
from edgellm.setting_values import number as checked_number
from edgellm.setting_values import whole_number
from edgellm.settings import (
    MAX_SEED,
    MAX_SEQUENCES,
    Sampling,
    SamplingFields,
    merged,
)
from edgellm.settings.argument_names import check_names

CLOSED = "the engine was closed"
MODEL_CLOSED = "the model was closed"


@check_names
class Engine(BoundToProcess):
    """Runs sequences that come and go. While it has some, other answers of the model wait.

    All methods may be called from any thread: two that call ``step`` take turns, and ``submit`` and
    ``cancel`` wait for no step. ``with`` closes it.

    Attributes:
        max_queue: maximum number of sequences that wait; None for any number.
    """

    def __init__(
        self,
        context: EngineContext,
        *,
        max_sequences: int | None = None,
        max_queue: int | None = None,
    ) -> None:
        self.max_queue: int | None = max_queue
        self._context = context
        self._scheduler = Scheduler(
            context.plan.kv_budget, max_sequences=max_sequences, max_queue=max_queue
        )
        self._meter = context.start_meter()
        self._runner = StepRunner(context, self._scheduler)
        self._stepping = threading.Lock()
        self._stepping_thread: int | None = None

    def __repr__(self) -> str:
        return f"<Engine, {self.running} sequences running, {self.waiting} waiting>"

    def __enter__(self) -> Engine:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def submit(
        self,
        prompt: str | abc.Sequence[int],
        sampling: Sampling | None = None,
        *,
        timeout: float | None = None,
        n: int = 1,
        **settings: Unpack[SamplingFields],
    ) -> int:
        """Queue a sequence; it joins as soon as there is memory for its prompt, in order.

        Args:
            prompt: a text (``Tokenizer.encode_prompt``) or token ids.
            sampling: how its tokens are drawn; instead of it, or on top of it, its fields as
                keywords.
            timeout: seconds from now until its last token, waiting included; None: any time. Its
                last token then has the ``finish_reason`` ``timeout``.
            n: completions of the prompt, which is computed once for all. Each is a sequence of its
                own. With a seed, the one at place ``i`` has ``seed + i``, as in vLLM.
            settings: fields of ``Sampling``.

        Returns:
            Its number, which ``step`` and ``cancel`` know it by. With ``n`` above 1 the number of
            the first; those of the others follow it: ``range(number, number + n)``.

        Raises:
            ConfigError: a setting is out of range, the prompt is empty or no token of this model,
                or beams are asked for.
            ContextError: the prompt does not fit the context.
            MemoryBudgetError: the budget has no room for its KV cache, even alone.
            QueueFullError: ``max_queue`` sequences wait already.
            ClosedError: the engine or the model was closed.
        """
        context = self._context
        sampling = merged("sampling", sampling, Sampling(), settings)
        require_no_beams(sampling)
        n = whole_number("n", n, 1, MAX_SEQUENCES)
        deadline = deadline_after(timeout) or math.inf
        self._scheduler.require_open()
        tokens = token_ids(prompt, context.tokenizer)
        context.check_prompt(tokens)
        require_known_tokens(sampling, context.model.config.vocab_size)
        continues = isinstance(prompt, str)
        sequences = [
            Sequence(context, tokens, how, continues=continues, deadline=deadline)
            for how in _samplings(sampling, n)
        ]
        kv_bytes = context.kv_bytes(sequences[0].max_tokens)
        kv_budget = self._scheduler.kv_budget
        if kv_bytes > kv_budget:
            raise MemoryBudgetError(
                f"a sequence of {len(tokens)} tokens and {sequences[0].limit} new ones needs"
                f" {size(kv_bytes)} for its KV cache; the plan has room for {size(kv_budget)}",
                hint="use a smaller max_tokens, or set aside more with a larger context or memory",
            )
        return self._scheduler.add(sequences)

    def cancel(self, number: int) -> None:
        """End a sequence with the ``finish_reason`` ``cancelled``; do nothing where it has ended.

        One that waits leaves at once, and its last token comes from the step that is under way or
        from the next. One that runs ends after the pass that is under way; where everybody in it
        was cancelled, the pass is left between two layers.
        """
        self._scheduler.cancel(whole_number("number", number, 0, sys.maxsize))
        self._runner.look_again()

    def cancel_all(self) -> None:
        """Cancel all sequences that are running or waiting now."""
        self._scheduler.cancel_all()
        self._runner.look_again()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until there is something for ``step`` to do; return whether there is.

        False where the time is over, or the engine or the model was closed. A thread that computes
        all steps is ``while engine.wait(): deliver(engine.step())``.

        Args:
            timeout: seconds at most; None: any time.
        """
        if timeout is not None:
            timeout = checked_number("timeout", timeout, 0, MAX_TIMEOUT)
        return self._scheduler.wait(timeout)

    def step(self, wait: bool | float | None = None) -> list[tuple[int, Token]]:
        """Compute one step of all sequences; return new tokens, each with its sequence's number.

        Where the model is in memory, prompts go through a chunk per step, so that those who are
        already generating go on; else all of them go through with the next pass over the weights.
        A sequence whose token cannot be drawn or decoded ends with the ``finish_reason`` ``error``
        and the error; the others go on. A thread that comes while another one computes a step waits
        for it, and computes the next.

        Args:
            wait: seconds to wait for something to do, or true for any time. Without it, and where
                nothing came, the list is empty.

        Raises:
            ReadError: a layer cannot be read; no sequence is lost, and the next step tries again.
            ClosedError: the engine or the model was closed.
        """
        if wait is not None and not isinstance(wait, bool):
            wait = checked_number("wait", wait, 0, MAX_TIMEOUT)
        if wait is True:
            self._scheduler.wait(None)
        elif wait:
            self._scheduler.wait(wait)
        with self._one_at_a_time("step"):
            self._scheduler.require_open()
            if not self._scheduler.has_sequences:
                return self._scheduler.take_tokens()
            self._runner.run()
            return self._scheduler.take_tokens()

    def close(self) -> list[tuple[int, Token]]:
        """End all sequences, and return the last token of each, ``cancelled``.

        It waits for the step that is under way, if there is one. May be called twice, and from any
        thread. Nothing can be submitted any more; ``step`` raises ClosedError, ``wait`` returns
        false.
        """
        self._scheduler.stop(CLOSED)
        with self._one_at_a_time("close"):
            self._runner.stop()
            running = self._scheduler.running
            last_tokens = self._scheduler.close(CLOSED)
            for sequence in running:
                sequence.release()
            self._runner.leave()
        return last_tokens

    def model_closed(self) -> None:
        """Wake those that wait for work: the model was closed, and there will be none."""
        self._scheduler.stop(MODEL_CLOSED)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._scheduler.is_idle

    @property
    def running(self) -> int:
        """Sequences that have memory."""
        return self._scheduler.running_count

    @property
    def waiting(self) -> int:
        """Sequences that wait until others have ended."""
        return self._scheduler.waiting_count

    @property
    def kv_bytes(self) -> KVBytes:
        """The bytes of KV caches."""
        return KVBytes(
            in_use=self._scheduler.bytes_in_use,
            kept=self._context.prefix_cache.kept_bytes,
            budget=self._scheduler.kv_budget,
        )

    @property
    def stats(self) -> EngineStats:
        """The cost so far."""
        cost = self._meter.snapshot(Progress(0))
        return replace(
            self._runner.totals,
            sequences=self._scheduler.ended,
            preemptions=self._scheduler.preemptions,
            weight_passes=cost.weight_passes,
            bytes_read=cost.bytes_read,
        )

    @contextmanager
    def _one_at_a_time(self, name: str) -> abc.Iterator[None]:
        """Wait for the step of another thread.

        Raises:
            EdgeLLMError: this thread is in a step: it would wait for itself.
        """
        thread = threading.get_ident()
        if self._stepping_thread == thread:
            raise EdgeLLMError(
                f"{name} was called within a step of this engine",
                hint="call it after the step, or use cancel_all",
            )
        with self._stepping:
            self._stepping_thread = thread
            try:
                yield
            finally:
                self._stepping_thread = None


def require_no_beams(sampling: Sampling) -> None:
    """Raise ConfigError where beams are asked for."""
    if sampling.beams > 1:
        raise ConfigError(
            "beam search does not run in a batch", hint="use generate, or set beams to 1"
        )


def _samplings(sampling: Sampling, n: int) -> list[Sampling]:
    """Return how each of ``n`` completions of one prompt is drawn."""
    if n == 1 or sampling.seed is None:
        return [sampling] * n
    return [replace(sampling, seed=(sampling.seed + place) % (MAX_SEED + 1)) for place in range(n)]
