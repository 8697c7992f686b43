"""Many sequences side by side: they join and leave between steps, and share each pass over the weights."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from edgellm.engine.batched_forward import Feed, feed
from edgellm.engine.sequence import Seat, Seating
from edgellm.errors import ClosedError, ConfigError, ContextError, MemoryBudgetError
from edgellm.generation.decode import Progress
from edgellm.generation.output import Token
from edgellm.plan.plan import megabytes
from edgellm.sampling.sampler import log_probability
from edgellm.settings import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """What a batch has cost so far. Sizes in bytes, times in seconds.

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

    sequences: int
    most_at_once: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    passes: int
    weight_passes: float
    bytes_read: int

    @property
    def tokens_per_second(self) -> float | None:
        """New tokens a second, prompts' time included; None where nothing was computed."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else None

    @property
    def tokens_per_weight_pass(self) -> float | None:
        """New tokens a pass over the weights, prompts' passes included; None where there were none."""
        return self.completion_tokens / self.passes if self.passes else None


class Batch:
    """An engine for sequences that come and go. ``with`` holds the model's turn: other answers wait until it is closed.

    ``submit`` and ``cancel`` may be called from any thread; ``step`` by one thread at a time.
    """

    def __init__(self, seating: Seating) -> None:
        self._seating = seating
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: deque[tuple[int, Seat]] = deque()
        self._running: dict[int, Seat] = {}
        self._bill = seating.bill()
        self._ended = self._most = self._prompt_tokens = self._completion_tokens = self._passes = 0
        self._seconds = 0.0
        self._open = ExitStack()
        self._open.enter_context(seating.turn.hold())

    def __enter__(self) -> Batch:
        """Return the batch."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Drop what is unfinished, and give the turn to others. May be called twice."""
        with self._lock:
            self._waiting.clear()
            self._running.clear()
        self._open.close()

    def submit(self, prompt: str | Sequence[int], sampling: Sampling | None = None) -> int:
        """Let a sequence join as soon as there is memory for it, after those before it; return its number.

        Args:
            prompt: a text (special tokens are added) or token ids.
            sampling: how its tokens are drawn.

        Raises:
            ConfigError: the prompt is empty or no token of this model, or beams are asked for.
            ContextError: the prompt does not fit the context.
            MemoryBudgetError: the budget has no room for its KV cache, even alone.
            ClosedError: the model was closed.
        """
        seating, sampling = self._seating, sampling or Sampling()
        ids = seating.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        seating.check(ids)
        if sampling.beams > 1:
            raise ConfigError(
                "beam search does not run in a batch", hint="use generate, or set beams to 1"
            )
        sequence = Seat(seating, ids, sampling, continues=isinstance(prompt, str))
        if sequence.nbytes > seating.room:
            raise MemoryBudgetError(
                f"a sequence of {sequence.prompt} tokens and {sequence.limit} new ones needs {megabytes(sequence.nbytes)}"
                f" for its KV cache; the plan has room for {megabytes(seating.room)}",
                hint="use a smaller max_tokens, or set aside more with a larger context or memory",
            )
        with self._lock:
            self._number += 1
            self._waiting.append((self._number, sequence))
            return self._number

    def answers(
        self, prompts: Sequence[str | Sequence[int]], samplings: Sequence[Sampling]
    ) -> Generator[tuple[int, Token]]:
        """Yield the tokens that continue some prompts, as they come, with the prompts' places; nothing else may be submitted.

        The last token of a prompt that is too long, or for whose cache the budget has no room, has
        the ``finish_reason`` ``error`` and the error; others are raised at once.
        """
        places: dict[int, int] = {}
        refused: list[tuple[int, Token]] = []
        for place, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):
            try:
                places[self.submit(prompt, sampling)] = place
            except (ContextError, MemoryBudgetError) as error:
                stats = self._seating.bill().stats(Progress(0), cached=0, produced=0)
                refused.append((place, Token(None, "", None, "error", stats, error)))
        yield from refused
        while not self.idle:
            for number, token in self.step():
                yield places[number], token

    def cancel(self, number: int) -> None:
        """Let a sequence end at the next step with ``finish_reason`` ``cancelled``; nothing happens where it has ended."""
        with self._lock:
            for waiting, sequence in (*self._waiting, *self._running.items()):
                if waiting == number:
                    sequence.cancelled = True

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        with self._lock:
            return not self._waiting and not self._running

    @property
    def stats(self) -> BatchStats:
        """What it has cost so far."""
        cost = self._bill.stats(Progress(0), cached=0, produced=0)
        return BatchStats(
            sequences=self._ended,
            most_at_once=self._most,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            seconds=self._seconds,
            passes=self._passes,
            weight_passes=cost.weight_passes,
            bytes_read=cost.bytes_read,
        )

    def step(self) -> list[tuple[int, Token]]:
        """Go one step on with all sequences; return new tokens, each with its sequence's number.

        Where the model is in memory, prompts go through a chunk a step, so that those who are
        already answering go on; else all of them go through with the next pass over the weights.

        Raises:
            ReadError: a layer cannot be read; no sequence is lost, and the next step tries again.
            ClosedError: the model was closed.
        """
        turn = self._seating.turn
        with turn.computing():
            begun = time.perf_counter()
            try:
                left = self._leaving()
                self._admit()
                return left + self._advance()
            finally:
                self._seconds += time.perf_counter() - begun

    def _leaving(self) -> list[tuple[int, Token]]:
        """Close those that were cancelled."""
        turn = self._seating.turn
        everybody = turn.cancelled.is_set()
        with self._lock:
            here = {**self._running, **dict(self._waiting)}
            gone = {number: one for number, one in here.items() if one.cancelled or everybody}
            self._waiting = deque(item for item in self._waiting if item[0] not in gone)
            self._running = {
                number: one for number, one in self._running.items() if number not in gone
            }
        if everybody and not turn.closed:
            turn.cancelled.clear()
        self._ended += len(gone)
        return [(number, one.cancel()) for number, one in sorted(gone.items())]

    def _admit(self) -> None:
        """Let those join, in their order, for whose caches there is room."""
        seating = self._seating
        with self._lock:
            held = sum(one.nbytes for one in self._running.values())
            while self._waiting and held + self._waiting[0][1].nbytes <= seating.room:
                if len(self._running) == seating.at_once:
                    break
                number, sequence = self._waiting.popleft()
                held += sequence.nbytes
                sequence.join(seating)
                self._running[number] = sequence
            self._most = max(self._most, len(self._running))

    def _advance(self) -> list[tuple[int, Token]]:
        """One pass."""
        feeds = self._feeds()
        if not feeds:
            return []
        turn, chunk = self._seating.turn, self._seating.chunk
        sequences = [self._running[number] for number in feeds]
        finished = False
        try:
            logits, passes = feed(
                self._seating.model,
                list(feeds.values()),
                chunk=chunk,
                keep_going=lambda: not turn.cancelled.is_set(),
            )
            finished = logits is not None
        finally:
            if not finished:
                for sequence in sequences:
                    sequence.begin_again()
        if turn.closed:
            raise ClosedError("the model was closed during the answers")
        if logits is None:
            return self._leaving()
        self._passes += passes
        drawing: list[tuple[int, Seat]] = []
        for (number, one), sequence in zip(feeds.items(), sequences, strict=True):
            sequence.done += len(one.tokens)
            self._count(sequence, len(one.tokens))
            if one.wanted:
                drawing.append((number, sequence))
        return self._drawn(drawing, logits)

    def _feeds(self) -> dict[int, Feed]:
        """What goes through the model next: a token of each answer, and prompts as far as ``step`` says."""
        streams_weights, chunk = self._seating.model.layers.streams_weights, self._seating.chunk
        room = self._seating.context if streams_weights else chunk
        feeds: dict[int, Feed] = {}
        prompts = 0
        for number, sequence in self._running.items():
            pending = sequence.tokens[sequence.done :]
            if sequence.done < sequence.prompt or len(pending) > 1:
                tokens = pending if streams_weights else pending[:chunk]
                if prompts and prompts + len(tokens) > room:
                    continue
                prompts += len(tokens)
                feeds[number] = Feed(tokens, sequence.caches, wanted=len(tokens) == len(pending))
            else:
                feeds[number] = Feed(pending, sequence.caches)
        return feeds

    def _count(self, sequence: Seat, tokens: int) -> None:
        """Note what has gone through the model."""
        progress = sequence.progress
        if sequence.produced:
            progress.forwards += 1
            progress.passes += 1
            return
        progress.forwards += -(-tokens // self._seating.chunk)
        progress.prefill_done += tokens
        self._prompt_tokens += tokens
        if progress.prefill_done == progress.prompt_tokens:
            progress.prefill_ended_at = time.perf_counter()

    def _drawn(
        self, drawing: Sequence[tuple[int, Seat]], logits: mx.array
    ) -> list[tuple[int, Token]]:
        """The next tokens of some sequences after logits (sequences, V); those that end leave."""
        lazy: list[tuple[mx.array, mx.array | None]] = []
        seen: list[mx.array] = []
        for row, (_, sequence) in enumerate(drawing):
            own, sampler = logits[row : row + 1], sequence.sampler
            assert sampler is not None, "it has joined"
            token = sampler(own)
            lazy.append(
                (token, log_probability(own, token) if sequence.sampling.logprobs else None)
            )
            seen += [] if sampler.seen is None else [sampler.seen]
        mx.eval(*seen, *(array for pair in lazy for array in pair if array is not None))
        answers = []
        for (number, sequence), (token, logprob) in zip(drawing, lazy, strict=True):
            taken = sequence.take(_only(token), None if logprob is None else _only(logprob))
            self._completion_tokens += 1
            answers.append((number, taken))
            if taken.finish_reason is not None:
                with self._lock:
                    self._running.pop(number, None)
                self._ended += 1
        return answers


def _only(array: mx.array) -> Any:
    """The number in an array of one."""
    values: Any = array.tolist()
    return values[0]
