"""One completion, from the prompt's tokens to the last token with what it has cost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from edgellm.device.model_lock import ModelLock
from edgellm.errors import ClosedError, MemoryBudgetError, NotFiniteError
from edgellm.generation.beam_search import beam_steps, require_memory
from edgellm.generation.decode import Step, generate_steps
from edgellm.generation.output import Beam, Token, prompt_tokens, top_logprobs
from edgellm.generation.stats import CostMeter, PrefillCallback, Progress
from edgellm.generation.text_stream import BranchingText, TextStream
from edgellm.kv_cache.cache import Cache
from edgellm.memory_plan.plan import Plan, caches_of
from edgellm.models.model import Model
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.reading.disk_reader import Reader
from edgellm.sampling.token_scorer import HEAD_ROWS, TokenScorer
from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Completer:
    """A loaded model, as one completion at a time needs it.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        plan: what it was loaded by.
        reader: reads its streamed weights.
        model_lock: held by whoever advances a completion; ends it when it is cancelled or closed.
        prefix_cache: the KV caches, with what they hold of completions before.
        speculation: chooses draft tokens; None for plain decoding.
        context: tokens that prompt and completion may have together.
    """

    model: Model
    tokenizer: Tokenizer
    plan: Plan
    reader: Reader
    model_lock: ModelLock
    prefix_cache: PrefixCache
    speculation: Speculation | None
    context: int

    def stream(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        end_tokens: frozenset[int],
        continues: bool,
        reuse_cache: bool,
        cancelled: threading.Event,
        on_prefill: PrefillCallback | None = None,
    ) -> Generator[Token]:
        """Yield the tokens of a completion, the last with its finish reason and its cost.

        Args:
            ids: the prompt, which fits the context.
            sampling: how tokens are drawn.
            end_tokens: tokens that end the completion.
            continues: whether the completion goes on in the middle of a text.
            reuse_cache: compute only what differs from the tokens of completions before.
            cancelled: set to end the completion.
            on_prefill: called before and while the prompt is computed.

        Raises:
            ClosedError: the model was closed while it ran.
            MemoryBudgetError: the budget has no room for so many beams.
            NotFiniteError: the model's logits are not finite.
            ReadError: while streaming weights.
        """
        progress = Progress(len(ids), on_prefill=on_prefill)
        meter = CostMeter(self.model, self.reader, self.plan)
        limit = min(sampling.max_tokens, max(1, self.context - len(ids)))
        new_text = partial(self._text, sampling, end_tokens, limit, continues=continues)
        text_stream = new_text()
        total = min(self.context, len(ids) + limit)
        scorer = None
        on_states = None
        if sampling.prompt_logprobs is not None:
            scorer = TokenScorer(self.model.logits, ids, top=sampling.prompt_logprobs)
            on_states = scorer.add
        lease = self.prefix_cache.begin(
            ids,
            total,
            reuse=reuse_cache and scorer is None,
            restore=scorer is None,
            sequences=caches_of(sampling.beams),
        )
        stats = partial(meter.snapshot, progress, cached=lease.cached, restored=lease.restored)
        try:
            make_steps = self._steps_for(
                sampling, lease.caches, total, end_tokens, continues=continues
            )
        except MemoryBudgetError:
            lease.drop()
            raise
        steps = make_steps(
            self.model,
            ids[lease.cached :],
            lease.caches,
            sampling,
            prefill_chunk=self._prefill_chunk(scorer),
            limit=limit,
            progress=progress,
            keep_going=lambda: self._keep_going() and not cancelled.is_set(),
            seen=ids,
            on_states=on_states,
        )
        produced = text_stream.tokens
        try:
            for step in steps:
                text, reason = text_stream.add(step.token)
                token = self._token(step, text)
                if scorer is not None and len(produced) == 1:
                    scored = prompt_tokens(ids, scorer, self.tokenizer)
                    token = replace(token, prompt_logprobs=scored)
                if reason:
                    cost = stats(completion_tokens=len(produced))
                    beams = tuple(_beam(*beam, new_text()) for beam in step.beams)
                    yield replace(token, finish_reason=reason, stats=cost, beams=beams)
                    return
                yield token
            # Steps that end without a finish reason were cancelled, or the model was closed.
            if self.model_lock.closed:
                raise ClosedError("the model was closed during the answer")
            cost = stats(completion_tokens=len(produced))
            yield Token(None, text_stream.flush(), None, "cancelled", cost)
        except NotFiniteError:
            ids, produced = [], []  # what the caches hold is good for nothing
            raise
        finally:
            steps.close()
            lease.keep([*ids, *produced])

    def _prefill_chunk(self, scorer: TokenScorer | None) -> int:
        """Return how many tokens go through a layer at once."""
        chunk = self.plan.prefill_chunk
        if scorer is not None and self.model.whole:
            return min(HEAD_ROWS, chunk)  # its states are logits
        return chunk

    def _token(self, step: Step, text: str) -> Token:
        if step.logprob is None:
            return Token(step.token, text)
        top = top_logprobs(step.logprob, self.tokenizer)
        return Token(step.token, text, step.logprob.logprob, top_logprobs=top)

    def _text(
        self, sampling: Sampling, end_tokens: frozenset[int], limit: int, *, continues: bool
    ) -> TextStream:
        """Return the stream of a text that begins."""
        decoder = self.tokenizer.decoder(continues=continues)
        return TextStream(decoder, stop=sampling.stop_texts, end_tokens=end_tokens, limit=limit)

    def _keep_going(self) -> bool:
        return not self.model_lock.cancelled.is_set()

    def _steps_for(
        self,
        sampling: Sampling,
        caches: Sequence[Cache],
        total: int,
        end_tokens: frozenset[int],
        *,
        continues: bool,
    ) -> Callable[..., Generator[Step]]:
        """Return the generator of steps, for ``total`` tokens with the prompt.

        Raises:
            MemoryBudgetError: the budget has no room for so many beams.
        """
        if sampling.beams == 1:
            return partial(generate_steps, speculation=self.speculation)
        planned_bytes = self.plan.sequence_cache_bytes(total)
        cache_bytes = max(sum(cache.nbytes for cache in caches), planned_bytes)
        require_memory(sampling.beams, cache_bytes, self.plan.kv_budget)
        start = self._text(sampling, end_tokens, total, continues=continues)
        ends = BranchingText(start).is_finished
        return partial(beam_steps, ends=ends, end_tokens=len(end_tokens))


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
