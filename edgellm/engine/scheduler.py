"""The scheduler of an engine: who waits, who runs, and what goes through the model next."""

from __future__ import annotations

import threading
from collections import deque

from edgellm.engine.batched_forward import SequenceInput
from edgellm.engine.sequence import Sequence
from edgellm.errors import ClosedError

CLOSED = "the batch was closed"


class Scheduler:
    """Admits sequences, first come first served, as far as memory for KV caches reaches.

    Its methods may be called from any thread.

    Args:
        kv_budget: bytes for the KV caches of all that run.
        max_sequences: that run at once; None for as many as there is memory for.
    """

    def __init__(self, kv_budget: int, max_sequences: int | None) -> None:
        self.kv_budget = kv_budget
        self._max_sequences = max_sequences
        self._lock = threading.Lock()
        self._closed = False
        self._last_number = 0
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits and nobody runs."""
        with self._lock:
            return not self._waiting and not self._running

    @property
    def running(self) -> list[Sequence]:
        """Those that run, in the order in which they were admitted."""
        with self._lock:
            return list(self._running)

    def add(self, sequence: Sequence) -> int:
        """Let a sequence wait, and give it its number; return that. Raises ClosedError."""
        with self._lock:
            if self._closed:
                raise ClosedError(CLOSED)
            self._last_number += 1
            sequence.number = self._last_number
            self._waiting.append(sequence)
            return sequence.number

    def cancel(self, number: int) -> None:
        """Mark a sequence as cancelled; do nothing where it has ended."""
        with self._lock:
            for sequence in (*self._waiting, *self._running):
                if sequence.number == number:
                    sequence.is_cancelled = True

    def admit(self) -> list[Sequence]:
        """Let those run, in their order, for whose caches there is memory; return them."""
        admitted = []
        with self._lock:
            used_bytes = sum(sequence.kv_bytes for sequence in self._running)
            # No one overtakes: a large sequence would else wait for ever behind small ones.
            while self._waiting and used_bytes + self._waiting[0].kv_bytes <= self.kv_budget:
                if len(self._running) == self._max_sequences:
                    break
                sequence = self._waiting.popleft()
                used_bytes += sequence.kv_bytes
                self._running.append(sequence)
                admitted.append(sequence)
        return admitted

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that has ended; do nothing where it is not there any more."""
        with self._lock:
            if sequence in self._running:
                self._running.remove(sequence)

    def remove_cancelled(self, *, everybody: bool) -> list[Sequence]:
        """Take out those that were cancelled, or everybody; return them in the order of numbers."""
        with self._lock:
            all_sequences = [*self._running, *self._waiting]
            gone = [one for one in all_sequences if everybody or one.is_cancelled]
            self._waiting = deque(one for one in self._waiting if one not in gone)
            self._running = [one for one in self._running if one not in gone]
        return sorted(gone, key=lambda one: one.number)

    def require_open(self) -> None:
        """Raise ClosedError after ``close``."""
        with self._lock:
            if self._closed:
                raise ClosedError(CLOSED)

    def close(self) -> None:
        """Take out everybody, and let nobody in any more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._running.clear()

    def schedule(self, prefill_tokens: int) -> list[tuple[Sequence, SequenceInput]]:
        """Return what goes through the model next.

        That is the last token of each sequence whose prompt is done, and of the prompts together
        up to ``prefill_tokens``, the earliest first. A prompt that does not fit waits for the next
        step; the first one always goes on.
        """
        scheduled = []
        used_tokens = 0
        for sequence in self.running:
            pending = tokens = sequence.pending
            if sequence.is_prefilling:
                tokens = pending[:prefill_tokens]
                if used_tokens and used_tokens + len(tokens) > prefill_tokens:
                    continue
                used_tokens += len(tokens)
            # in the middle of a prompt nothing is drawn
            needs_logits = len(tokens) == len(pending)
            prompt_tokens = max(0, sequence.prompt_tokens - sequence.computed)
            new = SequenceInput(tokens, sequence.caches, prompt_tokens, needs_logits)
            scheduled.append((sequence, new))
        return scheduled
