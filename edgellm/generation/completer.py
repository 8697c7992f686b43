"""One completion, from the prompt's tokens to the last token with what it has cost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edgellm.device import machine as device
from edgellm.errors import MachineError, NotFiniteError
from edgellm.generation.beam_search import beam_steps, require_memory
from edgellm.generation.decode import Step, generate_steps
from edgellm.generation.output import Beam, FinishReason, Token, prompt_tokens, top_logprobs
from edgellm.generation.stats import CostMeter, PrefillCallback, Progress, Stats
from edgellm.generation.text_stream import BranchingText, TextStream
from edgellm.kv_cache.cache import Cache
from edgellm.memory_plan.plan import Plan, caches_of
from edgellm.models.layers import KeepGoing, always, come_back
from edgellm.models.model import Model
from edgellm.prompt_cache.lease import Lease
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.reading.disk_reader import Reader
from edgellm.sampling.sampler import Sampler
from edgellm.sampling.token_scorer import HEAD_ROWS, TokenScorer
from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.structured.constraint import constraint_for
from edgellm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Completer:
    """A loaded model, as one completion at a time needs it.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        plan: the plan that it was loaded with.
        reader: reads its streamed weights.
        prefix_cache: the KV caches of sequences.
        speculation: chooses draft tokens; None for plain decoding.
        context: tokens that prompt and completion may have together.
    """

    model: Model
    tokenizer: Tokenizer
    plan: Plan
    reader: Reader
    prefix_cache: PrefixCache
    speculation: Speculation | None
    context: int


class Answer:
    """A completion on its way, computed pass by pass: an ``Occupant`` of the model.

    It may give way between two passes. Its sequence goes to the prefix cache then; all else stays,
    and the next pass goes on from the tokens as if nothing had been in between.

    Args:
        completer: the model.
        ids: the prompt, which fits the context.
        sampling: how tokens are drawn.
        end_tokens: tokens that end the completion.
        continues: whether the completion goes on in the middle of a text.
        reuse_cache: compute only what differs from the tokens of completions before.
        on_prefill: called before and while the prompt is computed.

    Attributes:
        ready: tokens that nobody has read yet; the last one of all has finish reason and cost.
        has_ended: whether there are no further passes.
        failure: what ended it instead of a last token: NotFiniteError, MemoryBudgetError (no room
            for this many beams), ReadError, or an error of ``on_prefill``.
        step_seconds: the time of the last pass.
        return_seconds: the time that it took to come back after it gave way.
    """

    def __init__(
        self,
        completer: Completer,
        ids: list[int],
        sampling: Sampling,
        *,
        end_tokens: frozenset[int],
        continues: bool,
        reuse_cache: bool,
        on_prefill: PrefillCallback | None,
    ) -> None:
        self.ready: deque[Token] = deque()
        self.has_ended: bool = False
        self.failure: Exception | None = None
        self.step_seconds: float = 0.0
        self.return_seconds: float = 0.0
        self._completer = completer
        self._ids = ids
        self._sampling = sampling
        self._end_tokens = end_tokens
        self._continues = continues
        self._reuse_cache = reuse_cache
        self._limit = sampling.new_tokens(len(ids), completer.context)
        self._text = self._text_stream(limit=self._limit)
        self._constraint = constraint_for(
            sampling.grammar,
            completer.tokenizer,
            end_tokens,
            completer.model.config.vocab_size,
            continues=continues,
        )
        self._sampler: Sampler | None = None
        self._scorer: TokenScorer | None = None  # of the prompt's tokens
        self._lease: Lease | None = None
        self._steps: Generator[Step] | None = None
        self._keep_going: KeepGoing = always
        self._is_stopped = False
        self._progress = Progress(len(ids), on_prefill=on_prefill)
        self._cached = self._restored = 0
        self._meter = CostMeter(completer.model, completer.reader, completer.plan)
        self._meter.stop()
        self._stopped_at = self._progress.started_at

    @property
    def is_ready(self) -> bool:
        """Whether there is a token to read."""
        return bool(self.ready)

    @property
    def stats(self) -> Stats:
        """The cost so far."""
        return self._meter.snapshot(
            self._progress,
            cached=self._cached,
            restored=self._restored,
            completion_tokens=len(self._text.tokens),
        )

    def step(self, keep_going: KeepGoing) -> None:
        """Compute the next pass, as long as ``keep_going`` says yes; its tokens are ``ready``."""
        self._keep_going = keep_going
        begun = time.perf_counter()
        returns = self._steps is None and bool(self._text.tokens)
        try:
            self._take_pass(self._steps or self._begin())
        except Exception as error:
            if not self._is_lost_and_back(error):
                self.failure = error
                self.has_ended = True
            self.give_way()
        except BaseException:  # of whichever thread has computed this
            self.give_way()
            raise
        self.step_seconds = time.perf_counter() - begun
        if returns:
            self.return_seconds = self.step_seconds

    def give_way(self) -> None:
        """Let go of the KV caches: they stay as a prefix, until others need their memory."""
        if self._lease is None:
            return
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        if self._is_stopped:
            self._drop_unread()
        tokens = [*self._ids, *self._text.tokens]
        if isinstance(self.failure, NotFiniteError):
            tokens = []  # what the caches hold is good for nothing
        for cache in self._lease.caches:
            cache.trim(len(tokens))
        is_over = self.has_ended or self._is_stopped
        returns_to = None
        if not is_over:
            returns_to = self
        is_wanted = self._reuse_cache or not is_over
        self._lease.keep(tokens, is_wanted=is_wanted, returns_to=returns_to)
        self._lease = None
        self._meter.stop()
        self._stopped_at = time.perf_counter()

    def stop(self) -> None:
        """Let the tokens that were read be all of them; from any thread."""
        self._is_stopped = True

    def end(self, reason: FinishReason) -> None:
        """Let the next token be the last, one that only closes the completion."""
        self._drop_unread()
        self.has_ended = True
        self.ready.append(Token(None, self._text.flush(), None, reason, self.stats))

    def _is_lost_and_back(self, error: Exception) -> bool:
        """Return whether layers were lost, and are there again, for the next step to go on."""
        layers = self._completer.model.layers
        return isinstance(error, MachineError) and come_back(layers, self._may_go_on)

    def _begin(self) -> Generator[Step]:
        """Begin, or go on from the tokens so far."""
        completer, sampling, progress = self._completer, self._sampling, self._progress
        progress.skip(time.perf_counter() - self._stopped_at)
        self._meter.go_on()
        new_tokens = len(self._text.tokens)
        tokens = [*self._ids, *self._text.tokens]
        total = min(completer.context, len(self._ids) + self._limit)
        if not new_tokens:
            progress.prefill_done = 0  # of a prompt that was interrupted
        on_states = None
        if sampling.prompt_logprobs is not None and not new_tokens:
            self._scorer = TokenScorer(
                completer.model.logits, self._ids, top=sampling.prompt_logprobs
            )
            on_states = self._scorer.add
        is_many = completer.model.is_many(len(self._ids))
        # what others have computed may be rounded otherwise than what this one goes on from
        is_exact = (
            new_tokens > 0 and not self._reuse_cache and completer.model.layers.max_exact_rows > 0
        )
        reuse = self._reuse_cache or (new_tokens > 0 and (is_many or not is_exact))
        self._lease = lease = completer.prefix_cache.begin(
            tokens,
            total,
            reuse=reuse and on_states is None,
            restore=new_tokens == 0 and on_states is None,
            exact=is_exact,
            prompt_tokens=len(self._ids),
            returns_to=self,
            sequences=caches_of(sampling.beams),
        )
        if new_tokens == 0 and is_many and lease.prefilled == lease.cached:
            lease.prefilled = len(self._ids)
        if self._sampler is not None:
            self._sampler.go_on(tokens, drawn=new_tokens)
        else:
            vocab_size = completer.model.config.vocab_size
            self._sampler = Sampler(
                sampling,
                tokens,
                vocab_size,
                lazy=device.has_gpu(),
                constraint=self._constraint,
            )
            self._cached, self._restored = lease.cached, lease.restored
        steps = partial(
            self._generator(lease.caches, total),
            completer.model,
            tokens[lease.cached :],
            lease.caches,
            sampling,
            prefill_chunk=self._prefill_chunk(),
            progress=progress,
            keep_going=self._may_go_on,
            seen=tokens,
            on_states=on_states,
        )
        self._steps = steps(limit=self._limit - new_tokens)
        return self._steps

    def _prefill_chunk(self) -> int:
        """Return how many tokens go through a layer at once."""
        completer = self._completer
        chunk = completer.plan.prefill_chunk
        if self._scorer is not None and completer.model.whole:
            return min(HEAD_ROWS, chunk)  # its states are logits
        return chunk

    def _generator(self, caches: Sequence[Cache], total: int) -> Callable[..., Generator[Step]]:
        """Return the generator of steps, for ``total`` tokens with the prompt.

        Raises:
            MemoryBudgetError: the budget has no room for this many beams.
        """
        completer, beams = self._completer, self._sampling.beams
        if beams == 1:
            return partial(
                generate_steps,
                sampler=self._sampler,
                speculation=completer.speculation,
                generated=len(self._text.tokens),
            )
        planned_bytes = completer.plan.sequence_cache_bytes(total)
        cache_bytes = max(sum(cache.nbytes for cache in caches), planned_bytes)
        require_memory(beams, cache_bytes, completer.plan.kv_budget)
        ends = BranchingText(self._text_stream(limit=total)).is_finished
        return partial(beam_steps, ends=ends, end_tokens=len(self._end_tokens))

    def _may_go_on(self) -> bool:
        return self._keep_going()

    def _drop_unread(self) -> None:
        """Take back the tokens that nobody has read; what a beam search has found stays."""
        if not self.ready or self._sampling.beams > 1:
            return
        read = self._text.tokens[: -len(self.ready)]
        self.ready.clear()
        self._text = self._text_stream(limit=self._limit)
        for token in read:
            self._text.add(token)

    def _take_pass(self, steps: Generator[Step]) -> None:
        """Take the tokens of a pass; those of a beam search come all at once."""
        for step in steps:
            text, reason = self._text.add(step.token, is_last=step.ends_text)
            token = Token(step.token, text)
            if step.logprob is not None:
                top = top_logprobs(step.logprob, self._completer.tokenizer)
                token = replace(token, logprob=step.logprob.logprob, top_logprobs=top)
            if self._scorer is not None:
                scored = prompt_tokens(self._ids, self._scorer, self._completer.tokenizer)
                token = replace(token, prompt_logprobs=scored)
                self._scorer = None
            if reason is not None:
                self.has_ended = True
                beams = tuple(
                    _beam(*beam, self._text_stream(limit=self._limit)) for beam in step.beams
                )
                token = replace(
                    token,
                    finish_reason=reason,
                    stats=self.stats,
                    beams=beams,
                    stop_text=self._text.stop_text,
                )
            self.ready.append(token)
            if self.has_ended or (step.ends_pass and self._sampling.beams == 1):
                return

    def _text_stream(self, *, limit: int) -> TextStream:
        completer = self._completer
        return TextStream(
            completer.tokenizer.decoder(continues=self._continues),
            stop=self._sampling.stop_texts,
            end_tokens=self._end_tokens,
            limit=limit,
        )


def _beam(tokens: Sequence[int], score: float, stream: TextStream) -> Beam:
    """Return what a beam search found, with its text."""
    text = ""
    reason = None
    for token in tokens:
        part, reason = stream.add(token)
        text += part
    if reason is None:  # the search was cancelled before its end
        return Beam(text + stream.flush(), tuple(tokens), score, "cancelled")
    return Beam(text, tuple(tokens), score, reason)
