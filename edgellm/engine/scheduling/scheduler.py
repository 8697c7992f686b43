"""The scheduler of an engine: who waits, who runs, who has ended, and what is computed next."""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from collections import abc
from operator import attrgetter

from edgellm.engine.scheduling.batched_forward import SequenceInput
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.errors import ClosedError, QueueFullError
from edgellm.generation.output import FinishReason, Token

LOOK_AHEAD = 16
"""Waiting sequences that are looked at for one that fits."""

MARGIN = 64
"""Tokens by which those that run may grow before one that gave way comes back."""

in_order = attrgetter("number")
"""Who came first."""


class Scheduler:
    """Admits sequences as far as memory for their KV caches reaches, and lets these grow.

    Memory belongs to those that came first. What they cannot use is lent to those that came later,
    which give it back when it is needed: the last one gives way, waits in its place in line, and
    goes on later from its tokens.

    Its methods may be called from any thread.

    Args:
        kv_budget: bytes for the KV caches of all that run.
        max_sequences: maximum number that run at once; None for as many as fit into memory.
        max_queue: maximum number of waiting sequences; None for any number.
    """

    def __init__(
        self, kv_budget: int, *, max_sequences: int | None = None, max_queue: int | None = None
    ) -> None:
        self.kv_budget = kv_budget
        self._max_sequences = max_sequences
        self._max_queue = max_queue
        # Guards the fields below, and is notified when there is work, or none will ever come.
        self._changed = threading.Condition()
        self._why_stopped: str | None = None
        self._last_number = 0
        self._by_number: dict[int, Sequence] = {}
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._bytes_in_use = 0
        self._next_deadline = math.inf
        self._any_cancelled = False
        self._tokens: list[tuple[int, Token]] = []
        """That no step has returned yet."""
        self.ended: int = 0
        self.preemptions: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether no sequence waits or runs, and no token is still to be returned."""
        with self._changed:
            return self._is_idle()

    @property
    def has_sequences(self) -> bool:
        """Whether a sequence waits or runs."""
        return bool(self._by_number)

    @property
    def running(self) -> list[Sequence]:
        """Those that run, in the order in which they came."""
        with self._changed:
            return list(self._running)

    @property
    def running_count(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def bytes_in_use(self) -> int:
        """Bytes for the KV caches of those that run."""
        return self._bytes_in_use

    def add(self, sequences: abc.Sequence[Sequence]) -> int:
        """Let sequences wait, or run where there is room; return the number of the first.

        The others' numbers follow it.

        Raises:
            ClosedError: after ``stop``.
            QueueFullError: too many would wait; none of them does.
        """
        with self._changed:
            self._require_open()
            first = self._last_number + 1
            for number, sequence in enumerate(sequences, first):
                sequence.number = number
            waited, running = len(self._waiting), len(self._running)
            self._waiting.extend(sequences)
            self._admit()
            if self._max_queue is not None and len(self._waiting) > self._max_queue:
                waiting = [one for one in sequences if one in self._waiting]
                if waiting:
                    self._take_out(sequences)
                    raise QueueFullError(
                        f"{waited} sequences wait, {running} run;"
                        f" max_queue {self._max_queue} has no room for {len(sequences)} more",
                        hint="try again when some have ended, or use a larger max_queue",
                    )
            for sequence in sequences:
                self._by_number[sequence.number] = sequence
                self._next_deadline = min(self._next_deadline, sequence.deadline)
            self._last_number += len(sequences)
            self._changed.notify_all()
            return first

    def wait(self, timeout: float | None) -> bool:
        """Wait until there is something to do, or never will be; return whether there is."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._why_stopped is not None or not self._is_idle(), timeout
            )
            return self._why_stopped is None and not self._is_idle()

    def cancel(self, number: int) -> None:
        """End a sequence: at once where nothing was computed of it, else within the next step.

        Do nothing where it has ended.
        """
        with self._changed:
            sequence = self._by_number.get(number)
            if sequence is not None:
                self._cancel(sequence)

    def cancel_all(self) -> None:
        """Cancel all sequences that wait or run now."""
        with self._changed:
            for sequence in list(self._by_number.values()):
                self._cancel(sequence)

    @property
    def admitted(self) -> list[Sequence]:
        """Those that run and have not started, in their order."""
        with self._changed:
            return [one for one in self._running if not one.is_started]

    def make_way(self) -> tuple[list[Sequence], list[Sequence]]:
        """Claim memory for the next tokens of all that run, and for who waits first in line.

        Return the sequences that give way for it, and those whose caches are to grow.
        """
        with self._changed:
            preempted, growing = [], []
            for sequence in list(self._running):
                if sequence.is_started and sequence.needs_room:
                    preempted += self._make_grow(sequence)
                    growing.append(sequence)
            preempted += self._seat_first()
            self._admit()
            return preempted, [one for one in growing if one.is_started]

    @property
    def next_deadline(self) -> float | None:
        """The earliest deadline of a sequence, on ``time.monotonic``; None: there is none."""
        if self._next_deadline == math.inf:
            return None
        return self._next_deadline

    def start(self, sequence: Sequence) -> bool:
        """Count a sequence as started; false where it was cancelled meanwhile."""
        with self._changed:
            sequence.is_started = not sequence.has_ended
            return sequence.is_started

    def end(self, sequence: Sequence) -> None:
        """Take out a sequence; others may run in its place."""
        with self._changed:
            self._remove(sequence)

    def end_cancelled(self) -> list[Sequence]:
        """Take out those that were cancelled, or whose time is over; return those that ran.

        The last tokens of all of them are among those of ``take_tokens``.
        """
        now = time.monotonic()
        if not self._any_cancelled and now < self._next_deadline:
            return []
        started = []
        with self._changed:
            self._any_cancelled = False
            for sequence in list(self._by_number.values()):
                reason: FinishReason | None = None
                if sequence.is_cancelled:
                    reason = "cancelled"
                elif sequence.deadline <= now:
                    reason = "timeout"
                if reason is not None:
                    started += [sequence] * sequence.is_started
                    self._close(sequence, reason)
            deadlines = (one.deadline for one in self._by_number.values())
            self._next_deadline = min(deadlines, default=math.inf)
        return started

    def post(self, sequence: Sequence, token: Token) -> None:
        """Let ``take_tokens`` return a new token, also where the step that drew it fails."""
        with self._changed:
            self._tokens.append((sequence.number, token))

    def take_tokens(self) -> list[tuple[int, Token]]:
        """Return the tokens that came since the last time, with their sequences' numbers."""
        with self._changed:
            tokens, self._tokens = self._tokens, []
            return tokens

    def require_open(self) -> None:
        """Raise ClosedError after ``stop``."""
        with self._changed:
            self._require_open()

    def stop(self, why: str) -> None:
        """Refuse new sequences and end all waits; ``why`` is the message for later callers."""
        with self._changed:
            if self._why_stopped is None:
                self._why_stopped = why
            self._changed.notify_all()

    def close(self, why: str) -> list[tuple[int, Token]]:
        """Stop, and remove all sequences; return their last tokens, and any not returned yet."""
        self.stop(why)
        with self._changed:
            for sequence in list(self._by_number.values()):
                self._close(sequence, "cancelled")
        return self.take_tokens()

    def schedule(
        self, prefill_tokens: int, busy: abc.Collection[Sequence] = ()
    ) -> list[tuple[Sequence, SequenceInput]]:
        """Return what goes through the model next.

        That is the last token of each sequence whose prompt is done, and of the prompts together
        up to ``prefill_tokens``. Half of these are the earliest prompt's, the others go to those
        that are done soonest, so that a short prompt waits for no long one.

        Args:
            prefill_tokens: as above.
            busy: sequences of which something is on its way already; only short prompts go
                beside it.
        """
        here = [one for one in self.running if one.is_started and one not in busy]
        for sequence in here:
            sequence.realign()
        prompts = [one for one in here if one.is_prefilling]
        if busy:
            here = [one for one in here if not (one in prompts and one.is_many)]
            prompts = [one for one in prompts if not one.is_many]
        taken = _shares([len(one.pending) for one in prompts], prefill_tokens)
        tokens_of = dict(zip(prompts, taken, strict=True))
        scheduled = []
        for sequence in here:
            pending = sequence.pending
            tokens = pending[: tokens_of.get(sequence, 1)]
            if not tokens:
                continue
            # in the middle of a prompt nothing is drawn
            needs_logits = len(tokens) == len(pending)
            prompt_tokens = max(0, sequence.prompt_tokens - sequence.computed)
            new = SequenceInput(
                tokens, sequence.caches, prompt_tokens, needs_logits, sequence.on_states
            )
            scheduled.append((sequence, new))
        return scheduled

    def _is_idle(self) -> bool:
        return not self._by_number and not self._tokens

    def _require_open(self) -> None:
        if self._why_stopped is not None:
            raise ClosedError(self._why_stopped)

    def _admit(self) -> None:
        """Admit the sequences for whose caches there is memory, the earliest first."""
        admitted = True
        while admitted:
            admitted = False
            for sequence in self._waiting[:LOOK_AHEAD]:
                if len(self._running) == self._max_sequences:
                    return
                if self._needed_bytes(sequence) <= self._free_bytes:
                    admitted = True
                    self._waiting.remove(sequence)
                    insort(self._running, sequence, key=in_order)
                    self._bytes_in_use += sequence.kv_bytes

    @property
    def _free_bytes(self) -> int:
        return self.kv_budget - self._bytes_in_use

    def _needed_bytes(self, sequence: Sequence) -> int:
        """Return the bytes that have to be free before a sequence is admitted.

        One that gave way waits until those before it have room to grow, too: else it would give way
        again soon, and what it computes to come back would be lost.
        """
        needed = sequence.kv_bytes
        if sequence.gave_way:
            before = sum(one.number < sequence.number for one in self._running)
            needed += before * MARGIN * sequence.kv_bytes // sequence.room
        return needed

    def _lent(self, sequence: Sequence) -> list[Sequence]:
        """Return those that run and came later than a sequence, the last one first."""
        return [one for one in reversed(self._running) if one.number > sequence.number]

    def _make_grow(self, sequence: Sequence) -> list[Sequence]:
        """Claim memory for the next tokens of a sequence; return those that give way.

        It gives way itself where none came later.
        """
        room, kv_bytes = sequence.next_claim()
        preempted = []
        for last in [*self._lent(sequence), sequence]:
            if kv_bytes - sequence.kv_bytes <= self._free_bytes:
                break
            self._preempt(last)
            preempted.append(last)
        else:
            return preempted
        self._bytes_in_use += kv_bytes - sequence.kv_bytes
        sequence.claim(room, kv_bytes)
        return preempted

    def _seat_first(self) -> list[Sequence]:
        """Return those that give back what the first waiting sequence needs, if that is enough."""
        if not self._waiting:
            return []
        first = self._waiting[0]
        lent = self._lent(first)
        needed = self._needed_bytes(first)
        if needed > self._free_bytes + sum(one.kv_bytes for one in lent):
            return []
        preempted = []
        for last in lent:
            has_seat = len(self._running) != self._max_sequences
            if has_seat and needed <= self._free_bytes:
                break
            self._preempt(last)
            preempted.append(last)
        return preempted

    def _preempt(self, sequence: Sequence) -> None:
        """Let a sequence that runs wait again, in its place in line."""
        self._running.remove(sequence)
        self._bytes_in_use -= sequence.kv_bytes
        self.preemptions += sequence.is_started
        sequence.gave_way = True
        sequence.is_started = False
        sequence.claim(*sequence.next_claim())
        insort(self._waiting, sequence, key=in_order)

    def _take_out(self, sequences: abc.Iterable[Sequence]) -> None:
        for sequence in sequences:
            if sequence in self._running:
                self._running.remove(sequence)
                self._bytes_in_use -= sequence.kv_bytes
            else:
                self._waiting.remove(sequence)

    def _cancel(self, sequence: Sequence) -> None:
        if sequence.is_started:
            sequence.is_cancelled = self._any_cancelled = True
            return
        self._close(sequence, "cancelled")
        self._changed.notify_all()

    def _close(self, sequence: Sequence, reason: FinishReason) -> None:
        self._remove(sequence)
        self._tokens.append((sequence.number, sequence.last_token(reason)))

    def _remove(self, sequence: Sequence) -> None:
        if self._by_number.pop(sequence.number, None) is None:
            return
        sequence.has_ended = True
        self.ended += 1
        self._take_out([sequence])
        self._admit()


def _shares(lengths: abc.Sequence[int], tokens: int) -> list[int]:
    """Return how many ``tokens`` each of some prompts gets, of which the first has come first."""
    if not lengths:
        return []
    shares = [0] * len(lengths)
    later = range(1, len(lengths))
    shares[0] = min(lengths[0], max(tokens - tokens // 2, tokens - sum(lengths[1:])))
    left = tokens - shares[0]
    for place in sorted(later, key=lengths.__getitem__):
        shares[place] = min(lengths[place], left)
        left -= shares[place]
    return shares
