"""The Python door: load a model, stream from it, and close it, from any thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import fields, replace
from functools import partial
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

import mlx.core as mx

from edgellm import device
from edgellm.answer import Bill, Completion, Token
from edgellm.beam import beam_steps
from edgellm.cache import Cache, stored
from edgellm.checkpoint import Checkpoint, read_checkpoint
from edgellm.config import LoadSettings, Sampling, parse_memory
from edgellm.device import Memory
from edgellm.errors import ClosedError, ConfigError, ContextError, MemoryBudgetError
from edgellm.generate import Progress, Step, generate_steps
from edgellm.lane import give_back_lane, on_some_lane, take_lane
from edgellm.loader import LoadProgress, arithmetic_of, disk_reader, load_model, make_caches
from edgellm.locate import locate
from edgellm.model import Model
from edgellm.needs import needs_of
from edgellm.paging import PagedEmbedding
from edgellm.plan import Plan, Speeds, automatic_budget, make_plan, megabytes
from edgellm.prefix import PrefixCache
from edgellm.reader import Reader
from edgellm.stopping import StopFilter
from edgellm.tokenizer import Tokenizer
from edgellm.turn import Turn

if TYPE_CHECKING:
    from edgellm.chat import Chat


class LLM:
    """A loaded model. One generation runs at a time; others wait for it. ``with`` closes it."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, model: Model, plan: Plan, reader: Reader) -> None:
        self.checkpoint, self.config, self.tokenizer, self.plan = checkpoint, checkpoint.config, tokenizer, plan
        self.path: Path = checkpoint.folder.path
        self.eos_token_ids = checkpoint.eos_token_ids | tokenizer.eos_token_ids
        self._model, self._reader = model, reader
        finalize(self, reader.close)  # its threads would outlive a model that nobody closed
        lane = take_lane()
        self._leave_lane = finalize(self, give_back_lane, lane)
        self._turn = Turn(lane, self._free)
        self._prefix = PrefixCache(self._make_caches)

    def __enter__(self) -> LLM:
        """Return the model."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.config.max_position_embeddings if self.plan.context_window else self.plan.context

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
            reuse_cache: compute only what differs from the tokens of the generation before; a chat does so.
            on_prefill: called before and while the prompt is computed.
            settings: fields of ``Sampling``.

        Raises:
            ConfigError: a setting is out of range; TypeError for one that does not exist.
            ContextError: the prompt does not fit the context.
            ClosedError: the model was closed.
            ReadError: while streaming weights.
        """
        sampling = replace(sampling or Sampling(), **settings)
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else [index(token) for token in prompt]
        self._check(ids)
        return self._turn.take(self._answer(ids, sampling, reuse_cache=reuse_cache, on_prefill=on_prefill))

    def generate(self, prompt: str | Sequence[int], sampling: Sampling | None = None, **settings: Any) -> Completion:
        """Return the whole continuation of a prompt; arguments and errors are those of ``stream``."""
        tokens = tuple(self.stream(prompt, sampling, **settings))
        last = tokens[-1]
        assert last.finish_reason is not None, "the last token closes the answer"
        assert last.stats is not None, "and says what it cost"
        return Completion("".join(token.text for token in tokens), tokens, last.finish_reason, last.stats)

    def chat(self, system: str | None = None, sampling: Sampling | None = None, **settings: Any) -> Chat:
        """Return a conversation. Raises TemplateError where the model has no chat template."""
        from edgellm.chat import Chat

        return Chat(self, system=system, sampling=sampling, **settings)

    def logits(self, tokens: Sequence[int]) -> mx.array:
        """Return the logits (L, V) in float32 after each of some tokens: teacher-forced, for measures of quality."""
        self._check(tokens)
        with self._turn.hold(), self._turn.computing():
            caches, _ = self._prefix.begin(tokens, len(tokens), reuse=False)
            chunk = self.plan.prefill_chunk
            rows = [mx.array(list(tokens[begin : begin + chunk]))[None] for begin in range(0, len(tokens), chunk)]
            hidden = self._model.hidden(rows, [caches] * len(rows))
            logits = mx.concatenate([self._model.logits(state)[0] for state in hidden]).astype(mx.float32)
            mx.eval(logits, *stored(caches))
            return logits

    def cancel(self) -> None:
        """End the generation that is running, from any thread; it closes with ``finish_reason`` ``cancelled``."""
        self._turn.cancelled.set()

    def close(self) -> None:
        """End what is running, and free weights, caches, threads and files. May be called twice, from any thread.

        It waits for the arithmetic of a token, not for whoever reads them: a stream that is asked for more then raises.
        """
        self._turn.close()

    def _free(self) -> None:
        self._model.layers.close()
        if isinstance(self._model.embed_tokens, PagedEmbedding):
            self._model.embed_tokens.close()
        self._reader.close()
        self._prefix.close()
        del self._model
        self._leave_lane()

    def _make_caches(self, room: int) -> list[Cache]:
        return make_caches(self.checkpoint, capacity=self.context, window=self.plan.context_window, reserve=room)

    def _check(self, ids: Sequence[int]) -> None:
        self._turn.require_open()
        if not ids:
            raise ConfigError("the prompt is empty", hint="give at least one token")
        if not 0 <= min(ids) <= max(ids) < self.config.vocab_size:
            raise ConfigError(f"a token id is outside the vocabulary of {self.config.vocab_size}")
        if len(ids) > self.context:
            raise ContextError(
                f"the prompt has {len(ids)} tokens and the context {self.context}",
                hint=f"use a larger --context; the model's own limit is {self.config.max_position_embeddings}",
            )

    def _answer(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        reuse_cache: bool,
        on_prefill: Callable[[Progress], None] | None,
    ) -> Generator[Token]:
        progress, bill = Progress(len(ids)), Bill(self._model, self._reader, self.plan)
        decoder, stops = self.tokenizer.decoder(), StopFilter(sampling.stop)
        limit = min(sampling.max_tokens, max(1, self.context - len(ids)))
        tokens = min(self.context, len(ids) + limit)
        caches, cached = self._prefix.begin(ids, tokens, reuse=reuse_cache)
        make_steps = self._search(sampling, caches, tokens) if sampling.beams > 1 else generate_steps
        produced: list[int] = []

        def keep_going() -> bool:
            if on_prefill is not None and progress.first_token_at is None:
                on_prefill(progress)
            return not self._turn.cancelled.is_set()

        try:
            for step in make_steps(
                self._model,
                ids[cached:],
                caches,
                sampling,
                chunk=self.plan.prefill_chunk,
                limit=limit,
                progress=progress,
                keep_going=keep_going,
                seen=ids,
            ):
                produced.append(step.token)
                ended = step.token in self.eos_token_ids
                text = stops.add("" if ended else decoder.add(step.token))
                if ended or stops.stopped or len(produced) == limit:
                    text += stops.add(decoder.finish())
                    reason = "stop" if ended or stops.stopped else "length"
                    stats = bill.stats(progress, cached=cached, produced=len(produced))
                    yield Token(step.token, text + stops.finish(), step.logprob, reason, stats)
                    return
                yield Token(step.token, text, step.logprob)
            if self._turn.closed:
                raise ClosedError("the model was closed during the answer")
            text = stops.add(decoder.finish()) + stops.finish()
            yield Token(None, text, None, "cancelled", bill.stats(progress, cached=cached, produced=len(produced)))
        finally:
            self._prefix.keep([*ids, *produced])

    def _search(self, sampling: Sampling, caches: Sequence[Cache], tokens: int) -> Callable[..., Generator[Step]]:
        """Beam search in ``tokens`` tokens, prompt and all. Raises MemoryBudgetError where the budget has no room for it."""
        plan = self.plan
        each = max(sum(cache.nbytes for cache in caches), plan.cache_bytes * tokens // self.context)
        need, room = (1 + sampling.beams) * each, plan.cache_bytes + plan.budget - plan.total_bytes
        if need > room:
            raise MemoryBudgetError(
                f"{sampling.beams} beams need {megabytes(need)} for their KV caches; the plan has room for {megabytes(room)}",
                hint="use fewer beams or a smaller max_tokens, or set aside more with a larger --context",
            )

        def ends(produced: Sequence[int]) -> bool:
            if produced[-1] in self.eos_token_ids:
                return True
            text = self.tokenizer.decode(produced) if sampling.stop else ""
            return any(stop in text for stop in sampling.stop)

        return partial(beam_steps, ends=ends, end_tokens=len(self.eos_token_ids))


def load(
    model: str | Path,
    settings: LoadSettings | None = None,
    *,
    progress: LoadProgress | None = None,
    **keywords: Any,
) -> LLM:
    """Load a model.

    Args:
        model: a folder, a Hub id (downloaded once) or a bundled name (``stories``).
        settings: how; instead of it, or on top of it, its fields as keywords (``memory="4GB"``).
        progress: called with bytes read and bytes in all.
        keywords: fields of ``LoadSettings``.

    Raises:
        ModelNotFoundError, DownloadError: nothing has this name, or it cannot be had.
        FormatError, UnsupportedModelError, TokenizerError, ReadError: the folder cannot be used.
        MemoryBudgetError: the model cannot run inside the budget.
        ConfigError: a setting is out of range.
    """
    settings = replace(settings or LoadSettings(), **keywords)
    checkpoint = read_checkpoint(locate(model))
    tokenizer = Tokenizer.from_folder(checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size)
    return open_llm(checkpoint, tokenizer, settings, progress=progress)


def open_llm(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    settings: LoadSettings,
    *,
    reader: Reader | None = None,
    progress: LoadProgress | None = None,
) -> LLM:
    """Load a model whose folder has been looked through; ``reader`` may be another than the disk's own."""
    plan = plan_for(checkpoint, settings)
    reader = reader or disk_reader(checkpoint, plan)
    try:
        with on_some_lane():
            model = load_model(checkpoint, plan, reader, settings, progress=progress)
    except BaseException:
        reader.close()
        raise
    if plan.resident:
        reader.close()  # all is read: its threads and files are free
    return LLM(checkpoint, tokenizer, model, plan, reader)


def plan_for(
    checkpoint: Checkpoint, settings: LoadSettings, *, memory: Memory | None = None, speeds: Speeds | None = None
) -> Plan:
    """The plan that ``load`` follows, on this machine or one with other ``memory``; ``speeds`` are for its prediction.

    Raises:
        MemoryBudgetError: the model cannot run inside the budget.
        ConfigError: a setting is out of range.
    """
    memory = memory or device.read_memory()
    budget = parse_memory(settings.memory, memory.total)
    config = checkpoint.config
    if settings.context is not None and settings.context > config.max_position_embeddings:
        raise ConfigError(f"context is {settings.context}; the model's own limit is {config.max_position_embeddings}")
    arithmetic = arithmetic_of(checkpoint, settings)
    return make_plan(
        needs_of(
            checkpoint,
            item=arithmetic.dtype.size,
            window=settings.context_window,
            fused_attention=arithmetic.fused_attention,
        ),
        budget=budget if budget is not None else automatic_budget(memory),
        slots=arithmetic.slots,
        context=settings.context,
        context_window=settings.context_window,
        prefill_chunk=settings.prefill_chunk,
        speeds=speeds,
    )


def fields_of(settings: type[Sampling | LoadSettings]) -> tuple[str, ...]:
    """The names of a settings class, for those who pass keywords on."""
    return tuple(field.name for field in fields(settings))
