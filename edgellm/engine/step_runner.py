"""The steps of an engine: each is a forward of all that run, and a token of each."""

# N sequences that draw a token, V vocabulary

from __future__ import annotations

import time
from collections import abc
from contextlib import suppress
from weakref import finalize

import mlx.core as mx
import numpy as np

from edgellm.device import machine as device
from edgellm.device.place import Place
from edgellm.engine.engine_stats import EngineStats
from edgellm.engine.lone_stream import LoneStream
from edgellm.engine.prefill_pace import PrefillPace
from edgellm.engine.prefix_sharing import PrefixSharing
from edgellm.engine.scheduling.batched_forward import SequenceInput
from edgellm.engine.scheduling.context import EngineContext
from edgellm.engine.scheduling.scheduler import Scheduler
from edgellm.engine.scheduling.sequence import Sequence
from edgellm.engine.turns import Turns
from edgellm.engine.work import Work, keep_going_for
from edgellm.errors import ClosedError, EdgeLLMError, MachineError, ReadError
from edgellm.generation.output import Token
from edgellm.models.layers import LayersInParts, come_back


class StepRunner:
    """Computes the steps of an engine, one at a time.

    Args:
        context: the model.
        scheduler: who runs.

    Attributes:
        totals: what it all has cost.
    """

    def __init__(self, context: EngineContext, scheduler: Scheduler) -> None:
        self._context = context
        self._scheduler = scheduler
        self._sharing = PrefixSharing(context)
        self._entering: Place | None = None
        """In line for the model."""
        self._held: list[Place] = []
        """At the model, while there are sequences: one, or none."""
        finalize(self, _abandon, self._held)
        self._prompts: Work | None = None
        """Parts of prompts that have gone through some of the layers."""
        self._pace = PrefillPace()
        self._lone = LoneStream(context)
        self._turns = Turns(context, scheduler)
        self.totals: EngineStats = EngineStats()

    def run(self) -> None:
        """Compute one step of all sequences, and post new tokens to the scheduler.

        The model is held until there are no more sequences. While it is waited for, those end whose
        time is over.
        """
        if not self._held and not self._enter():
            self._end_cancelled()
            return
        try:
            with self._held[0].computing():
                self._step_or_begin_again()
        finally:
            if not self._scheduler.has_sequences:
                self.leave()

    def look_again(self) -> None:
        """Stop waiting for the model when no sequence is left that needs it."""
        entering = self._entering
        if entering is not None and not self._scheduler.has_sequences:
            entering.cancel()

    def stop(self) -> None:
        """End what is under way."""
        self._turns.close()

    def leave(self) -> None:
        """Let others have the model."""
        while self._held:
            self._held.pop().leave()

    def _enter(self) -> bool:
        """Wait for the model; return false if a sequence's time is over first."""
        lock = self._context.model_lock
        self._entering = place = lock.place(deadline=self._scheduler.next_deadline)
        try:
            self.look_again()
            if not place.advance():
                return False
            self._held.append(place)
            return True
        finally:
            self._entering = None

    def _step_or_begin_again(self) -> None:
        """Compute a step; where a machine was lost in it and is back, the next ones begin again.

        The sequences are computed again from their tokens, and go on as if nothing had been.
        """
        try:
            self._step()
        except MachineError:
            self._turns.close()
            running = [one for one in self._scheduler.running if one.is_started]
            keep_going = keep_going_for(self._context.model_lock, lambda: running)
            if not come_back(self._context.model.layers, keep_going):
                raise
            for sequence in running:
                sequence.restart()

    def _step(self) -> None:
        started_at = time.perf_counter()
        try:
            self._end_cancelled()
            self._make_way()
            self._start_admitted()
            self._advance()
        finally:
            self.totals.steps += 1
            self.totals.seconds += time.perf_counter() - started_at

    def _end_cancelled(self) -> None:
        ended = self._scheduler.end_cancelled()
        self._turns.land_all_of(ended, self._land)
        for sequence in ended:
            sequence.release()

    def _make_way(self) -> None:
        """Let caches grow where they are full; those that came last give way for it."""
        preempted, growing = self._scheduler.make_way()
        self._turns.land_all_of([*preempted, *growing], self._land)
        for sequence in preempted:
            if not sequence.has_ended:
                sequence.give_way()
        for sequence in growing:
            if sequence.has_ended:
                continue
            assert sequence.lease is not None, "it has started"
            self._context.prefix_cache.grow(sequence.lease, sequence.room)

    def _start_admitted(self) -> None:
        """Give memory to those that may run."""
        admitted = self._scheduler.admitted
        if not admitted:
            return
        running = self._scheduler.running
        for sequence in admitted:
            try:
                lease = self._sharing.begin(sequence, running)
                if lease is None:
                    continue
                sequence.start(lease)
                if not self._scheduler.start(sequence):
                    sequence.drop()
                    continue
                self.totals.cached_tokens += sequence.cached_tokens
            except Exception as error:
                self._fail(sequence, error)
        started = sum(one.is_started and not one.has_ended for one in running)
        self.totals.most_at_once = max(self.totals.most_at_once, started)

    def _advance(self) -> None:
        """Send what comes next through the model, and draw tokens after it."""
        prompts = self._prompts
        if prompts is not None and not prompts.sequences:
            prompts = self._prompts = None  # nobody waits for it any more
        busy = []
        if prompts is not None:
            busy = prompts.sequences
        lone = self._lone_sequence()
        if lone is not None:
            self._advance_lone(lone)
            return
        if self._turns.advance(self._land):
            return
        scheduled = self._scheduler.schedule(self._prefill_tokens(), busy)
        if not isinstance(self._context.model.layers, LayersInParts):
            self._advance_together(scheduled)
            return
        of_prompts = [pair for pair in scheduled if self._is_long(*pair)]
        steps = [pair for pair in scheduled if not self._is_long(*pair)]
        if steps:
            self._take_steps(steps)
        if prompts is None and of_prompts:
            prompts = self._prompts = Work(self._context, of_prompts)
        if prompts is not None:
            self._advance_prompts(prompts, alone=not steps)

    def _lone_sequence(self) -> Sequence | None:
        """Return the sequence that generates while nobody else is there, if it may speculate."""
        if self._context.speculation is None or self._prompts is not None:
            return None
        if self._turns.under_way:
            return None
        running = [one for one in self._scheduler.running if one.is_started]
        if len(running) != 1:
            return None
        running[0].realign()
        if running[0].is_prefilling:
            return None
        return running[0]

    def _advance_lone(self, sequence: Sequence) -> None:
        """Compute the next tokens of the only sequence, in one pass."""
        lock = self._context.model_lock
        begun = time.perf_counter()
        try:
            tokens = self._lone.advance(sequence, keep_going_for(lock, lambda: [sequence]))
        except (MachineError, ReadError, ClosedError):
            sequence.rewind()
            raise
        except Exception as error:
            self._fail(sequence, error)
            return
        if lock.closed:
            raise ClosedError("the model was closed during the answers")
        self.totals.passes += 1
        for token in tokens:
            self._post(sequence, token)
        self._pace.observe_step(time.perf_counter() - begun)

    def _is_long(self, sequence: Sequence, new: SequenceInput) -> bool:
        """Return whether tokens take longer than those of a step."""
        most = max(1, self._context.model.layers.max_exact_rows)
        return len(new.tokens) > most or (sequence.is_many and new.prompt_tokens > 0)

    def _prefill_tokens(self) -> int:
        """Return how many tokens of prompts may go through next."""
        most = self._context.plan.prefill_chunk
        if self._context.model.layers.streams_weights:
            # a pass costs its reads, however many tokens it has: whole prompts go with it
            most = self._context.context
        running = [one for one in self._scheduler.running if one.is_started]
        prefilling = sum(one.is_prefilling for one in running)
        if prefilling == len(running):
            return most
        self._pace.waiting_share = prefilling / (len(running) - prefilling)
        return self._pace.tokens(most)

    def _advance_together(self, scheduled: abc.Sequence[tuple[Sequence, SequenceInput]]) -> None:
        """Send prompts and steps through the model in one pass."""
        if not scheduled:
            return
        work = Work(self._context, scheduled)
        begun = time.perf_counter()
        if not work.advance():
            self._end_cancelled()
            return
        prompt_tokens = sum(len(new.tokens) for one, new in scheduled if one.is_prefilling)
        is_mixed = 0 < prompt_tokens < work.rows
        self._finish(work)
        seconds = time.perf_counter() - begun
        self._pace.observe(seconds, prompt_tokens, is_mixed=is_mixed)
        self._turns.observe_together(work.rows, seconds)

    def _take_steps(self, steps: abc.Sequence[tuple[Sequence, SequenceInput]]) -> None:
        """Send the last tokens of those that generate through the model, and short prompts."""
        work = Work(self._context, steps)
        begun = time.perf_counter()
        if not work.advance():
            self._end_cancelled()
            return
        self._finish(work)
        self._pace.observe_step(time.perf_counter() - begun)

    def _advance_prompts(self, work: Work, *, alone: bool) -> None:
        """Send parts of prompts through some layers, or through all where nobody waits."""
        layers = work.layers_left
        if not alone:
            layers = min(layers, self._pace.layers(work.rows) or layers)
        begun = time.perf_counter()
        try:
            goes_on = work.advance(layers)
        except BaseException:
            self._prompts = None
            raise
        self._pace.observe_prompt(work.rows, layers, time.perf_counter() - begun)
        if not goes_on:
            self._end_cancelled()
        if not goes_on or work.is_done:
            self._prompts = None
        if goes_on and work.is_done:
            self._finish(work)

    def _land(self, work: Work, goes_on: bool) -> None:
        """Draw the tokens of a group; one that was told to stop gets none."""
        if goes_on:
            self._finish(work)
        else:
            self._end_cancelled()

    def _finish(self, work: Work) -> None:
        """Draw tokens after those that have gone through the model."""
        self.totals.passes += work.passes
        self.totals.prompt_tokens += work.prompt_tokens
        drawing, logits = work.finish()
        # whoever was cancelled during the pass draws nothing more
        self._end_cancelled()
        self._draw(drawing, logits)

    def _draw(self, sequences: abc.Sequence[Sequence], logits: mx.array) -> None:
        """Draw the next tokens of N sequences after logits (N, V); those that end leave."""
        drawn = []
        unevaluated: list[mx.array | None] = []
        likeliest = {
            row: sequence
            for row, sequence in enumerate(sequences)
            if not sequence.has_ended and sequence.takes_likeliest
        }
        if likeliest:
            # in one go: a call for each takes longer than all of them together
            rows = logits
            if len(likeliest) < len(logits):
                rows = logits[mx.array(list(likeliest))]
            together = sequences[next(iter(likeliest))].likeliest(rows)
            unevaluated += [together.tokens, together.largest_logits]
            for place, sequence in enumerate(likeliest.values()):
                sequence.expect(together, place)
        # lazy on a GPU: nothing is waited for before all of them are drawn
        for row, sequence in enumerate(sequences):
            if sequence.has_ended:
                continue
            try:
                if row not in likeliest:
                    unevaluated += sequence.draw(_row(logits, row))
                drawn.append(sequence)
            except Exception as error:
                self._fail(sequence, error)
        with suppress(Exception):  # whose it is turns up when each is read
            mx.eval(unevaluated)  # what is None in it is passed over
        for sequence in drawn:
            try:
                token = sequence.append()
            except Exception as error:
                self._fail(sequence, error)
                continue
            self._post(sequence, token)

    def _post(self, sequence: Sequence, token: Token) -> None:
        """Let a new token be returned; the last one ends its sequence."""
        self._scheduler.post(sequence, token)
        self.totals.completion_tokens += 1
        if token.finish_reason is not None:
            self._scheduler.end(sequence)
            sequence.release()

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence with an error."""
        if not isinstance(error, EdgeLLMError):
            cause, told = error, ""
            with suppress(Exception):  # of an exception that cannot say what it is
                told = f": {cause}"
            error = EdgeLLMError(
                f"the sequence failed: {type(cause).__name__}{told}",
                hint="its __cause__ has the traceback; the other sequences go on",
            )
            error.__cause__ = cause
        self._scheduler.post(sequence, sequence.last_token("error", error))
        self._scheduler.end(sequence)
        sequence.drop()


def _row(logits: mx.array, row: int) -> mx.array:
    """Return one row (1, V) of logits (N, V)."""
    if len(logits) == 1:
        return logits
    if device.has_gpu():
        return logits[row : row + 1]
    # to wait for a slice of MLX's takes longer than to copy it
    memory = np.array(logits.astype(mx.float32), copy=False)
    return mx.array(memory[row : row + 1])


def _abandon(held: abc.Iterable[Place]) -> None:
    """Let others have the model of an engine that nobody has any more."""
    for place in held:
        place.abandon()
