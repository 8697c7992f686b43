"""An engine: many sequences side by side, a step at a time."""

# N sequences that draw a token, V vocabulary

from __future__ import annotations

import threading
import time
from collections import abc
from contextlib import ExitStack
from dataclasses import dataclass, replace

import mlx.core as mx

from edgellm.console.units import size
from edgellm.engine.batched_forward import SequenceInput, forward
from edgellm.engine.context import EngineContext
from edgellm.engine.scheduler import Scheduler
from edgellm.engine.sequence import Sequence
from edgellm.errors import (
    ClosedError,
    ConfigError,
    ContextError,
    EdgeLLMError,
    MemoryBudgetError,
)
from edgellm.generation.output import Token
from edgellm.generation.prompt import token_ids
from edgellm.generation.stats import Progress
from edgellm.settings import Sampling, merged
from edgellm.settings.argument_names import check_names


@dataclass(slots=True, kw_only=True)
class EngineStats:
    """The cost of all sequences so far. Sizes in bytes, times in seconds.

    Attributes:
        sequences: that have ended.
        most_at_once: the most sequences that were in memory together.
        prompt_tokens: that went through the model.
        completion_tokens: new tokens of all sequences.
        seconds: in which steps were computed.
        passes: over the weights of all layers.
        weight_passes: reads of all streamed weights; 0 when resident.
        bytes_read: from disk.
    """

    sequences: int = 0
    most_at_once: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    passes: int = 0
    weight_passes: float = 0.0
    bytes_read: int = 0

    @property
    def tokens_per_second(self) -> float | None:
        """New tokens a second, prompts' time included; None where nothing was computed."""
        if self.seconds <= 0:
            return None
        return self.completion_tokens / self.seconds

    @property
    def tokens_per_weight_pass(self) -> float | None:
        """New tokens a pass over the weights, prompts' included; None where there were none."""
        if self.passes == 0:
            return None
        return self.completion_tokens / self.passes


@check_names
class Engine:
    """Runs sequences that come and go. It holds the model lock until it is closed.

    ``submit`` and ``cancel`` may be called from any thread; ``step`` by one thread at a time, which
    is checked.
    ``with`` closes it.
    """

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._scheduler = Scheduler(context.plan.kv_budget, context.max_sequences)
        self._meter = context.start_meter()
        self._totals = EngineStats()
        self._stepping = threading.Lock()
        # releases the lock at the first ``close`` and does nothing at the next
        self._held = ExitStack()
        self._held.enter_context(context.model_lock.acquire())

    def __enter__(self) -> Engine:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Drop what is unfinished, and release the model lock, after the step that is under way.

        May be called twice, and from any thread.
        """
        with self._stepping:
            self._scheduler.close()
            self._held.close()

    def submit(self, prompt: str | abc.Sequence[int], sampling: Sampling | None = None) -> int:
        """Let a sequence join as soon as there is memory for it, after those before it.

        Args:
            prompt: a text (``Tokenizer.encode_prompt``) or token ids.
            sampling: how its tokens are drawn.

        Returns:
            Its number, which ``step`` and ``cancel`` know it by.

        Raises:
            ConfigError: the prompt is empty or no token of this model, or beams are asked for.
            ContextError: the prompt does not fit the context.
            MemoryBudgetError: the budget has no room for its KV cache, even alone.
            ClosedError: the batch or the model was closed.
        """
        context = self._context
        sampling = merged("sampling", sampling, Sampling(), {})
        tokens = token_ids(prompt, context.tokenizer)
        context.check_prompt(tokens)
        if sampling.beams > 1:
            raise ConfigError(
                "beam search does not run in a batch", hint="use generate, or set beams to 1"
            )
        sequence = Sequence(context, tokens, sampling, continues=isinstance(prompt, str))
        kv_budget = self._scheduler.kv_budget
        if sequence.kv_bytes > kv_budget:
            raise MemoryBudgetError(
                f"a sequence of {sequence.prompt_tokens} tokens and {sequence.limit} new ones needs"
                f" {size(sequence.kv_bytes)} for its KV cache;"
                f" the plan has room for {size(kv_budget)}",
                hint="use a smaller max_tokens, or set aside more with a larger context or memory",
            )
        return self._scheduler.add(sequence)

    def answers(
        self, prompts: abc.Sequence[str | abc.Sequence[int]], samplings: abc.Sequence[Sampling]
    ) -> abc.Generator[tuple[int, Token]]:
        """Yield the tokens that continue some prompts, as they come, with the prompts' places.

        Nothing else may be submitted meanwhile. The last token of a prompt that is too long, or for
        whose cache the budget has no room, has the ``finish_reason`` ``error`` and the error;
        other errors are raised at once.
        """
        places: dict[int, int] = {}
        refused: list[tuple[int, Token]] = []
        for place, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
            try:
                places[self.submit(prompt, sampling)] = place
            except (ContextError, MemoryBudgetError) as error:
                no_cost = self._context.start_meter().snapshot(Progress(0))
                refused.append((place, Token(None, "", None, "error", no_cost, error)))
        # only now: nothing is said of the others before all prompts are known to be sound
        yield from refused
        while not self.idle:
            for number, token in self.step():
                yield places[number], token

    def cancel(self, number: int) -> None:
        """End a sequence at the next step, with the ``finish_reason`` ``cancelled``."""
        self._scheduler.cancel(number)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._scheduler.is_idle

    @property
    def stats(self) -> EngineStats:
        """The cost so far."""
        cost = self._meter.snapshot(Progress(0))
        return replace(self._totals, weight_passes=cost.weight_passes, bytes_read=cost.bytes_read)

    def step(self) -> list[tuple[int, Token]]:
        """Go one step on with all sequences; return new tokens, each with its sequence's number.

        Where the model is in memory, prompts go through a chunk a step, so that those who are
        already generating go on; else all of them go through with the next pass over the weights.
        A sequence whose logits are not finite ends with the ``finish_reason`` ``error`` and the
        error; the others go on.

        Raises:
            ReadError: a layer cannot be read; no sequence is lost, and the next step tries again.
            ClosedError: the batch or the model was closed.
            EdgeLLMError: another thread is in a step.
        """
        if not self._stepping.acquire(blocking=False):
            raise EdgeLLMError(
                "another thread is in a step of this batch",
                hint="let one thread call step; submit and cancel may be called from any",
            )
        try:
            self._scheduler.require_open()
            with self._context.model_lock.computing():
                return self._step()
        finally:
            self._stepping.release()

    def _step(self) -> list[tuple[int, Token]]:
        started_at = time.perf_counter()
        try:
            closing = self._close_cancelled()
            self._admit()
            return closing + self._advance()
        finally:
            self._totals.seconds += time.perf_counter() - started_at

    def _close_cancelled(self) -> list[tuple[int, Token]]:
        """Take out those that were cancelled; return the tokens that close them."""
        lock = self._context.model_lock
        everybody = lock.cancelled.is_set()
        cancelled = self._scheduler.remove_cancelled(everybody=everybody)
        if everybody and not lock.closed:
            # this was LLM.cancel: it ends those that are here now, and none that come later
            lock.cancelled.clear()
        self._totals.sequences += len(cancelled)
        return [(sequence.number, sequence.cancelled_token()) for sequence in cancelled]

    def _admit(self) -> None:
        """Give memory to those that may join."""
        for sequence in self._scheduler.admit():
            sequence.start(self._context)
        running = len(self._scheduler.running)
        self._totals.most_at_once = max(self._totals.most_at_once, running)

    def _advance(self) -> list[tuple[int, Token]]:
        """Send what comes next through the model, and draw tokens after it."""
        chunk = prefill_tokens = self._context.plan.prefill_chunk
        if self._context.model.layers.streams_weights:
            # a pass costs its reads, however many tokens it has: whole prompts go with it
            prefill_tokens = self._context.context
        scheduled = self._scheduler.schedule(prefill_tokens)
        if not scheduled:
            return []
        logits = self._forward(scheduled)
        if logits is None:
            return self._close_cancelled()
        drawing = []
        for sequence, new in scheduled:
            if sequence.completion_tokens == 0:
                self._totals.prompt_tokens += len(new.tokens)
            sequence.record_forward(len(new.tokens), prefill_chunk=chunk)
            if new.needs_logits:
                drawing.append(sequence)
        return self._draw(drawing, logits)

    def _forward(self, scheduled: abc.Sequence[tuple[Sequence, SequenceInput]]) -> mx.array | None:
        """Return the logits (N, V) of those that draw a token; None where everybody was cancelled.

        After a failure, or where it was cancelled, sequences begin anew: some layers' caches hold
        the new tokens and others do not.
        """
        lock = self._context.model_lock
        logits = None
        try:
            logits, passes = forward(
                self._context.model,
                [new for _, new in scheduled],
                prefill_chunk=self._context.plan.prefill_chunk,
                keep_going=lambda: not lock.cancelled.is_set(),
            )
            self._totals.passes += passes
        finally:
            if logits is None:
                for sequence, _ in scheduled:
                    sequence.restart()
        if lock.closed:
            raise ClosedError("the model was closed during the answers")
        return logits

    def _draw(self, sequences: abc.Sequence[Sequence], logits: mx.array) -> list[tuple[int, Token]]:
        """Draw the next tokens of N sequences after logits (N, V); those that end leave."""
        # lazy on a GPU: nothing is waited for before all of them are drawn
        draws = [sequence.draw(logits[row : row + 1]) for row, sequence in enumerate(sequences)]
        mx.eval(draws)  # what is None in it is passed over
        tokens = []
        for sequence in sequences:
            token = sequence.append()
            tokens.append((sequence.number, token))
            if token.error is None:
                self._totals.completion_tokens += 1
            if token.finish_reason is not None:
                self._scheduler.remove(sequence)
                self._totals.sequences += 1
        return tokens
