"""One sequence of an engine: a text on its way."""

# V vocabulary

from __future__ import annotations

import math
import time
from collections import abc
from contextlib import suppress
from dataclasses import replace

import mlx.core as mx

from edgellm.device import machine as device
from edgellm.engine.scheduling.context import EngineContext
from edgellm.errors import EdgeLLMError, NotFiniteError
from edgellm.generation.decode import DecodeLoop, Step
from edgellm.generation.not_finite import located
from edgellm.generation.output import FinishReason, PromptToken, Token, prompt_tokens, top_logprobs
from edgellm.generation.stats import Progress, Stats
from edgellm.generation.text_stream import TextStream
from edgellm.kv_cache.cache import Cache, KVCache
from edgellm.models.layers import KeepGoing
from edgellm.models.model import Model
from edgellm.prompt_cache.kept_sequence import Tokens, as_tokens
from edgellm.prompt_cache.lease import Lease
from edgellm.sampling.logprobs import Logprobs, TokenLogprob
from edgellm.sampling.sampler import Draw, Sampler
from edgellm.sampling.token_scorer import TokenScorer
from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.structured.constraint import constraint_for

GROWTH, GROWTH_SHARE, DOUBLINGS = 64, 8, 2
"""KV caches get room for this many new tokens, and for this part of the tokens so far.

The number doubles with each growth, so many times: whose text has become long is likely to go on.
Each growth copies all tokens, and the steps of a pass have to be made anew.
"""

MIN_FREE = 24
"""Tokens for which there is room before each pass: draft tokens need it."""


class Sequence:
    """A prompt and what was generated after it; memory comes with ``start``.

    Args:
        context: the model.
        prompt: its token ids.
        sampling: how tokens are drawn.
        continues: whether the prompt was a text, which the completion continues.
        deadline: when its time is over, on ``time.monotonic``.

    Attributes:
        number: by which an engine's caller knows it.
        tokens: the prompt's and the new ones.
        sampling: how tokens are drawn.
        limit: maximum number of new tokens.
        max_tokens: maximum number of tokens, the prompt's included.
        room: tokens that its KV caches have memory for, or will have when it starts.
        kv_bytes: the bytes of these.
        lease: its KV caches; None before it has started.
        computed: tokens whose keys and values are in the caches.
        cached_tokens: those of the prompt that did not have to be computed.
        is_many: whether its prompt is computed as many tokens are (``Model.is_many``).
        leader: the sequence whose first tokens it waits for, to copy them.
        shared: how many those are.
        is_started: whether it was told to start; before that nobody computes anything of it.
        is_cancelled: whether it is to end within the next step.
        gave_way: whether it has run before, and lost its memory to one that came before it.
        has_ended: whether it has its last token.
    """

    def __init__(
        self,
        context: EngineContext,
        prompt: abc.Sequence[int],
        sampling: Sampling,
        *,
        continues: bool = False,
        deadline: float = math.inf,
    ) -> None:
        self.number = 0
        self.deadline = deadline
        self.tokens: list[int] = list(prompt)
        self.prompt_tokens: int = len(prompt)
        self.limit: int = sampling.new_tokens(len(prompt), context.context)
        self.max_tokens: int = min(context.context, len(prompt) + self.limit)
        self.room: int = 0
        self._growths = 0
        self.kv_bytes: int = 0
        self.lease: Lease | None = None
        self.prompt: Tokens = as_tokens(prompt)
        self.is_many: bool = context.model.is_many(len(prompt))
        self.leader: Sequence | None = None
        self.shared = 0
        self.computed: int = 0
        self.cached_tokens: int = 0
        self.is_started = False
        self.is_cancelled = False
        self.gave_way = False
        self.has_ended = False
        self.sampling = sampling
        self._context = context
        self._tokenizer = context.tokenizer
        self._constraint = constraint_for(
            sampling.grammar,
            context.tokenizer,
            context.end_tokens,
            context.model.config.vocab_size,
            continues=continues,
        )
        self._sampler: Sampler | None = None
        self._drawn: Draw | None = None
        self._place_drawn = 0
        self._drawn_logprobs: Logprobs | None = None
        self._head = context.model.logits
        self._scorer = self._new_scorer()
        self._progress = Progress(len(prompt))
        self._meter = context.start_meter()  # until ``start``: of one that is cancelled before
        self._text = TextStream(
            context.tokenizer.decoder(continues=continues),
            stop=sampling.stop_texts,
            end_tokens=context.end_tokens,
            limit=self.limit,
        )
        self.claim(*self.next_claim())

    @property
    def completion_tokens(self) -> int:
        """New tokens so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def pending(self) -> list[int]:
        """Tokens that have yet to go through the model."""
        return self.tokens[self.computed :]

    @property
    def is_prefilling(self) -> bool:
        """Whether more has to go through the model than the token that was drawn last.

        That is so for a prompt, and for a whole text after ``restart``.
        """
        return self.computed < self.prompt_tokens or len(self.pending) > 1

    @property
    def caches(self) -> list[Cache]:
        """Its KV caches, one per layer; none before it has started and after it has ended."""
        if self.lease is None:
            return []
        return self.lease.caches

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's own tokens are asked for."""
        return self.sampling.prompt_logprobs is not None

    @property
    def on_states(self) -> abc.Callable[[mx.array], None] | None:
        """Called with the hidden states of the prompt's tokens; None where nobody asks for them."""
        if self._scorer is None:
            return None
        return self._scorer.add

    @property
    def needs_room(self) -> bool:
        """Whether its KV caches have to grow before the next pass."""
        return self.room < min(self.max_tokens, len(self.tokens) + MIN_FREE)

    def next_claim(self) -> tuple[int, int]:
        """Return tokens that it should have room for next, and the bytes of these."""
        tokens = len(self.tokens)
        growth = GROWTH << min(DOUBLINGS, self._growths)
        room = min(self.max_tokens, tokens + growth + tokens // GROWTH_SHARE)
        return room, self._context.kv_bytes(room)

    def claim(self, room: int, kv_bytes: int) -> None:
        """Note what memory is meant for it."""
        self.room, self.kv_bytes = room, kv_bytes
        self._growths += self.is_started

    def start(self, lease: Lease) -> None:
        """Go on from what is in the caches of a lease; the cost is counted from the first on."""
        self.lease = lease
        self.leader = None
        self.computed = lease.cached
        if self._sampler is not None:
            return
        self.cached_tokens = lease.cached
        self._meter = self._context.start_meter()
        self._sampler = Sampler(
            self.sampling,
            self.tokens,
            self._context.model.config.vocab_size,
            lazy=device.has_gpu(),
            constraint=self._constraint,
        )

    def give_way(self) -> None:
        """Let go of its caches: they stay for it, as long as nobody else needs their memory.

        It goes on from its tokens when it is started again.
        """
        if self.lease is not None:
            self.lease.keep(self.tokens, returns_to=self)
            self.lease = None
        self.computed = 0
        if not self.completion_tokens:
            self._forget_prompt()
            self._sampler = None  # nothing was drawn: it starts as if for the first time

    def release(self) -> None:
        """Give its caches back, to be kept for prompts that begin with the same tokens."""
        if self.lease is not None:
            self.lease.keep(self.tokens)

    def drop(self) -> None:
        """Give its caches back, to be freed: what they hold is good for nothing."""
        if self.lease is not None:
            self.lease.drop()

    def realign(self) -> None:
        """Go back to where tokens and caches agree, after a step that was interrupted."""
        if self.caches[0].offset != self.computed or self.computed == len(self.tokens):
            self.rewind()

    def rewind(self) -> None:
        """Forget what a pass that failed has left half-way in the caches."""
        agreed = min(self.computed, len(self.tokens) - 1)
        for cache in self.caches:
            # a window may have moved, and of a whole model's cache nobody knows
            is_plain = isinstance(cache, KVCache) and cache.window is None
            if not is_plain or cache.offset < agreed:
                self.restart()
                return
        for cache in self.caches:
            cache.trim(agreed)
        self.computed = agreed

    def restart(self) -> None:
        """Forget all that is in the caches."""
        for cache in self.caches:
            cache.trim(0)
        self.computed = 0
        self.cached_tokens = 0
        if self.lease is not None:
            self.lease.prefilled = 0
        if not self.completion_tokens:
            self._forget_prompt()

    def record_forward(self, tokens: int, *, prefill_chunk: int) -> None:
        """Note that this many pending tokens have gone through the model."""
        if self.is_many and self.lease is not None and self.lease.prefilled == self.computed:
            self.lease.prefilled = min(self.computed + tokens, self.prompt_tokens)
        self.computed += tokens
        progress = self._progress
        if self.completion_tokens:
            # a text that starts over after a failure counts as one pass, too
            progress.forwards += 1
            progress.decode_passes += 1
            return
        progress.forwards += math.ceil(tokens / prefill_chunk)
        progress.prefill_done += tokens
        if self.computed == self.prompt_tokens:
            progress.prefill_ended_at = time.perf_counter()

    def draw(self, logits: mx.array) -> list[mx.array | None]:
        """Draw the next token from logits (1, V), for ``append``; return what to evaluate.

        Raises:
            ConfigError: a logits processor fails.
        """
        assert self._sampler is not None, "it has started"
        drawn = self._sampler(logits)
        self.expect(drawn, 0)
        pending = [drawn.tokens, drawn.largest_logits, *self._sampler.pending]
        if self.sampling.logprobs:
            self._drawn_logprobs = self._sampler.logprobs(logits, drawn.tokens)
            pending += self._drawn_logprobs.pending
        return pending

    @property
    def takes_likeliest(self) -> bool:
        """Whether its next token is the model's likeliest, with nothing else to say of it."""
        assert self._sampler is not None, "it has started"
        return self._sampler.plain_greedy and not self.sampling.logprobs

    def likeliest(self, logits: mx.array) -> Draw:
        """Return the likeliest tokens of N sequences that take these, for logits (N, V)."""
        assert self._sampler is not None, "it has started"
        return self._sampler.likeliest(logits)

    def expect(self, drawn: Draw, place: int) -> None:
        """Take note of where its next token is among those of several sequences."""
        self._drawn, self._place_drawn = drawn, place
        self._drawn_logprobs = None

    def append(self) -> Token:
        """Take the token that was drawn; return it with the text that it completes.

        Raises:
            NotFiniteError: nothing could be drawn.
        """
        assert self._drawn is not None, "it was drawn"
        try:
            token = self._drawn.read(self._place_drawn)
        except NotFiniteError as error:
            raise located(error, self.caches) from None
        logprob = None
        if self._drawn_logprobs is not None:
            logprob = self._drawn_logprobs.read()[0]
        self._progress.record_token()
        is_last = self._sampler is not None and self._sampler.has_ended
        return self._take(token, logprob, is_last=is_last)

    def decode_loop(
        self, model: Model, speculation: Speculation, keep_going: KeepGoing
    ) -> DecodeLoop:
        """Return what computes the next tokens, several in one pass where they can be drafted."""
        assert self._sampler is not None, "it has started"
        return DecodeLoop(
            model, self.caches, self._sampler, speculation, self._progress, keep_going
        )

    def take(self, steps: abc.Sequence[Step]) -> list[Token]:
        """Take the tokens of one pass, up to the last of the text; the caches hold no others."""
        taken: list[Token] = []
        for place, step in enumerate(steps, 1):
            # all tokens of a pass but its last are accepted draft tokens
            self._progress.accepted_tokens += place < len(steps)
            self.computed += 1
            taken.append(self._take(step.token, step.logprob, is_last=step.ends_text))
            if taken[-1].finish_reason is not None:
                break
        for cache in self.caches:
            cache.trim(self.computed)
        return taken

    def _take(self, token: int, logprob: TokenLogprob | None, *, is_last: bool) -> Token:
        """Take the next token; return it with the text that it completes."""
        scored: tuple[PromptToken, ...] = ()
        if self._scorer is not None:
            scored = prompt_tokens(self.tokens, self._scorer, self._tokenizer)
            self._scorer = None
        self.tokens.append(token)
        text, finish_reason = self._text.add(token, is_last=is_last)
        stats = None
        if finish_reason is not None:
            stats = self._stats()
        new = Token(
            token,
            text,
            None,
            finish_reason,
            stats,
            prompt_logprobs=scored,
            stop_text=self._text.stop_text,
        )
        if logprob is None:
            return new
        top = top_logprobs(logprob, self._tokenizer)
        return replace(new, logprob=logprob.logprob, top_logprobs=top)

    def last_token(self, reason: FinishReason, error: EdgeLLMError | None = None) -> Token:
        """Return the token that closes a completion which goes no further."""
        text = ""
        with suppress(Exception):  # of a text that cannot be decoded the rest stays unsaid
            text = self._text.flush()
        return Token(None, text, None, reason, self._stats(), error)

    def _forget_prompt(self) -> None:
        self._progress.prefill_done = 0  # else the prompt would count twice
        self._scorer = self._new_scorer()

    def _new_scorer(self) -> TokenScorer | None:
        """Return what scores the prompt's tokens, if that is asked for."""
        if self.sampling.prompt_logprobs is None:
            return None
        return TokenScorer(self._head, self.tokens, top=self.sampling.prompt_logprobs)

    def _stats(self) -> Stats:
        return self._meter.snapshot(
            self._progress, cached=self.cached_tokens, completion_tokens=self.completion_tokens
        )
