"""A loaded model: stream from it, one answer or many, and close it, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

import mlx.core as mx

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.device.exclusive import ModelLock
from edgellm.device.streams import acquire_stream, release_stream
from edgellm.engine.context import EngineContext
from edgellm.engine.engine import Engine
from edgellm.errors import ClosedError, ConfigError
from edgellm.generation.beam_search import beam_steps, require_memory
from edgellm.generation.decode import Step, generate_steps
from edgellm.generation.output import Completion, Token, completion_of
from edgellm.generation.prompt import check_prompt
from edgellm.generation.stats import CostMeter, Progress, Stats
from edgellm.generation.text_stream import TextStream
from edgellm.kv_cache.cache import Cache, stored
from edgellm.models.model import Model
from edgellm.models.paged_embedding import PagedEmbedding
from edgellm.plan.plan import Plan
from edgellm.prompt_cache.disk_cache import PromptCache
from edgellm.prompt_cache.prefix_cache import PrefixCache
from edgellm.reading.disk_reader import Reader
from edgellm.runtime.loader import make_caches
from edgellm.settings import Sampling
from edgellm.speculation.controller import Speculation
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgellm.chat import Chat


class LLM:
    """A loaded model. One generation runs at a time; others wait for it. ``with`` closes it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        model: Model,
        plan: Plan,
        reader: Reader,
        *,
        speculation: Speculation | None = None,
        kept: PromptCache | None = None,
    ) -> None:
        self.checkpoint, self.config, self.tokenizer, self.plan = (
            checkpoint,
            checkpoint.config,
            tokenizer,
            plan,
        )
        self.path: Path = checkpoint.folder.path
        self.eos_token_ids = checkpoint.eos_token_ids | tokenizer.eos_token_ids
        self._model, self._reader, self._speculation = model, reader, speculation
        finalize(self, reader.close)  # its threads would outlive a model that nobody closed
        lane = acquire_stream()
        self._leave_lane = finalize(self, release_stream, lane)
        self._turn = ModelLock(lane, self._free)
        self._prefix = PrefixCache(self._make_caches, kept)

    def __enter__(self) -> LLM:
        """Return the model."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return (
            self.config.max_position_embeddings if self.plan.context_window else self.plan.context
        )

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that have been read from disk since the model was loaded; may be asked from any thread."""
        return self._reader.bytes_read

    def stream(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        *,
        reuse_cache: bool = False,
        on_prefill: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> Generator[Token]:
        """Yield tokens that continue a prompt, as they come.

        Args:
            prompt: a text (special tokens are added) or token ids.
            sampling: how tokens are drawn; instead of it, or on top of it, its fields as keywords.
            reuse_cache: compute only what differs from the tokens of the generation before; a chat
                does so.
            on_prefill: called before and while the prompt is computed.
            settings: fields of ``Sampling``.

        Raises:
            ConfigError: a setting is out of range; TypeError for one that does not exist.
            ContextError: the prompt does not fit the context.
            ClosedError: the model was closed.
            ReadError: while streaming weights.
        """
        sampling = replace(sampling or Sampling(), **settings)
        ids = (
            self.tokenizer.encode(prompt)
            if isinstance(prompt, str)
            else [index(token) for token in prompt]
        )
        self._check(ids)
        continues = isinstance(prompt, str)
        return self._turn.take(
            self._answer(
                ids, sampling, continues=continues, reuse_cache=reuse_cache, on_prefill=on_prefill
            )
        )

    def generate(
        self, prompt: str | Sequence[int], sampling: Sampling | None = None, **settings: Any
    ) -> Completion:
        """Return the whole continuation of a prompt; arguments and errors are those of ``stream``."""
        return completion_of(list(self.stream(prompt, sampling, **settings)))

    def stream_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        at_once: int | None = None,
        **settings: Any,
    ) -> Generator[tuple[int, Token]]:
        """Yield tokens that continue some prompts side by side, each with its prompt's place, as they come.

        All that fit into memory share each pass over the weights; the others join when one ends. A
        prompt that cannot run gets one token with the ``finish_reason`` ``error`` and the error,
        and the others go on.

        Args:
            prompts: texts or token ids.
            sampling: how tokens are drawn, one for all or one a prompt; ``settings`` are as in
                ``stream``.
            at_once: sequences that are computed side by side at the most; None for as many as there
                is memory for.

        Raises:
            ConfigError: a setting is out of range, a prompt is empty, or beams are asked for.
            ClosedError, ReadError: as ``stream`` does.
        """
        if at_once is not None and at_once < 1:
            raise ConfigError(f"at_once is {at_once}; it must be at least 1")
        if isinstance(prompts, str):
            raise ConfigError("prompts is one text", hint="give a list of them, or use stream")
        each = (
            [sampling or Sampling()] * len(prompts)
            if sampling is None or isinstance(sampling, Sampling)
            else list(sampling)
        )
        if len(each) != len(prompts):
            raise ConfigError(
                f"there are {len(each)} samplings for {len(prompts)} prompts",
                hint="give one, or one a prompt",
            )
        return self._side_by_side(prompts, [replace(one, **settings) for one in each], at_once)

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        sampling: Sampling | Sequence[Sampling] | None = None,
        *,
        at_once: int | None = None,
        **settings: Any,
    ) -> list[Completion]:
        """Return the continuations of some prompts, in their order; arguments and errors are those of ``stream_batch``."""
        tokens: list[list[Token]] = [[] for _ in prompts]
        for place, token in self.stream_batch(prompts, sampling, at_once=at_once, **settings):
            tokens[place].append(token)
        return list(map(completion_of, tokens))

    def batch(self, *, at_once: int | None = None) -> Engine:
        """Return an engine whose sequences come and go: what a server stands on. It has the turn until it is closed.

        Its sequences take the memory of the KV cache; a conversation after it computes its first
        turn anew.

        Args:
            at_once: sequences at the most; None for as many as there is memory for. The others
                wait.

        Raises:
            ClosedError: the model was closed.
            EdgeLLMError: this thread has an unfinished stream of this model.
        """
        engine = Engine(
            EngineContext(
                model=self._model,
                checkpoint=self.checkpoint,
                tokenizer=self.tokenizer,
                plan=self.plan,
                reader=self._reader,
                model_lock=self._turn,
                end_tokens=self.eos_token_ids,
                context=self.context,
                max_sequences=at_once,
            )
        )
        with self._turn.computing():
            self._prefix.close()
        return engine

    def chat(
        self, system: str | None = None, sampling: Sampling | None = None, **settings: Any
    ) -> Chat:
        """Return a conversation. Raises TemplateError where the model has no chat template."""
        from edgellm.chat import Chat

        return Chat(self, system=system, sampling=sampling, **settings)

    def logits(self, tokens: Sequence[int]) -> mx.array:
        """Return the logits (L, V) in float32 after each of some tokens: teacher-forced, for measures of quality."""
        self._check(tokens)
        with self._turn.hold(), self._turn.computing():
            caches, _ = self._prefix.begin(tokens, len(tokens), reuse=False)
            chunk = self.plan.prefill_chunk
            rows = [
                mx.array(list(tokens[begin : begin + chunk]))[None]
                for begin in range(0, len(tokens), chunk)
            ]
            hidden = self._model.hidden(rows, [caches] * len(rows))
            logits = mx.concatenate([self._model.logits(state)[0] for state in hidden]).astype(
                mx.float32
            )
            mx.eval(logits, *stored(caches))
            return logits

    def cancel(self) -> None:
        """End the generation that is running, from any thread; it closes with ``finish_reason`` ``cancelled``."""
        self._turn.cancelled.set()

    def close(self) -> None:
        """End what is running, and free weights, caches, threads and files. May be called twice, from any thread.

        It waits for the arithmetic of a token, not for whoever reads them: a stream that is asked
        for more then raises.
        """
        self._turn.close()

    def _free(self) -> None:
        self._model.layers.close()
        if isinstance(self._model.embed_tokens, PagedEmbedding):
            self._model.embed_tokens.close()
        self._reader.close()
        if self._speculation is not None:
            self._speculation.close()
        self._prefix.close()
        del self._model
        self._leave_lane()

    def _make_caches(self, room: int) -> list[Cache]:
        plan = self.plan
        return make_caches(
            self.checkpoint,
            capacity=self.context,
            window=plan.context_window,
            reserve=room,
            kv_bits=plan.kv_bits,
        )

    def _side_by_side(
        self,
        prompts: Sequence[str | Sequence[int]],
        samplings: Sequence[Sampling],
        at_once: int | None,
    ) -> Generator[tuple[int, Token]]:
        with self.batch(at_once=at_once) as batch:
            yield from batch.answers(prompts, samplings)

    def _check(self, ids: Sequence[int]) -> None:
        self._turn.require_open()
        check_prompt(ids, self.config, context=self.context)

    def _answer(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        continues: bool,
        reuse_cache: bool,
        on_prefill: Callable[[Progress], None] | None,
    ) -> Generator[Token]:
        progress, bill = Progress(len(ids)), CostMeter(self._model, self._reader, self.plan)
        limit = min(sampling.max_tokens, max(1, self.context - len(ids)))
        decoder = self.tokenizer.decoder(continues=continues)
        writing = TextStream(
            decoder, stop=sampling.stop, end_tokens=self.eos_token_ids, limit=limit
        )
        tokens = min(self.context, len(ids) + limit)
        caches, cached = self._prefix.begin(ids, tokens, reuse=reuse_cache, restore=True)
        plain = partial(generate_steps, speculation=self._speculation)
        make_steps = self._search(sampling, caches, tokens) if sampling.beams > 1 else plain
        told = -1

        def keep_going() -> bool:
            nonlocal told
            if (
                on_prefill is not None
                and progress.first_token_at is None
                and progress.prefill_done != told
            ):
                told = progress.prefill_done
                on_prefill(progress)
            return not self._turn.cancelled.is_set()

        def stats() -> Stats:
            return bill.snapshot(
                progress,
                cached=cached,
                restored=self._prefix.restored,
                completion_tokens=len(writing.tokens),
            )

        steps = make_steps(
            self._model,
            ids[cached:],
            caches,
            sampling,
            prefill_chunk=self.plan.prefill_chunk,
            limit=limit,
            progress=progress,
            keep_going=keep_going,
            seen=ids,
        )
        try:
            for step in steps:
                text, reason = writing.add(step.token)
                yield Token(step.token, text, step.logprob, reason, stats() if reason else None)
                if reason:
                    return
            if self._turn.closed:
                raise ClosedError("the model was closed during the answer")
            yield Token(None, writing.flush(), None, "cancelled", stats())
        finally:
            steps.close()
            self._prefix.keep([*ids, *writing.tokens])

    def _search(
        self, sampling: Sampling, caches: Sequence[Cache], tokens: int
    ) -> Callable[..., Generator[Step]]:
        """Beam search in ``tokens`` tokens, prompt and all. Raises MemoryBudgetError where the budget has no room for it."""
        plan = self.plan
        each = max(sum(cache.nbytes for cache in caches), plan.cache_bytes * tokens // self.context)
        require_memory(sampling.beams, each, plan.kv_budget)

        def ends(produced: Sequence[int]) -> bool:
            if produced[-1] in self.eos_token_ids:
                return True
            text = self.tokenizer.decode(produced) if sampling.stop else ""
            return any(stop in text for stop in sampling.stop)

        return partial(beam_steps, ends=ends, end_tokens=len(self.eos_token_ids))
