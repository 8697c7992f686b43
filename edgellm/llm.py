"""The Python door: load a model, stream from it, and close it, from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm import device
from edgellm.cache import Cache
from edgellm.checkpoint import Checkpoint, read_checkpoint
from edgellm.config import LoadSettings, Sampling, parse_memory
from edgellm.errors import ClosedError, ConfigError, ContextError, EdgeLLMError
from edgellm.generate import Progress, generate_steps
from edgellm.loader import LoadProgress, arithmetic_of, load_model, make_caches
from edgellm.locate import locate
from edgellm.model import Model
from edgellm.paging import PagedEmbedding, PagedLayers
from edgellm.plan import Plan, automatic_budget, make_plan, needs_of
from edgellm.reader import DiskReader, Reader
from edgellm.stopping import StopFilter
from edgellm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgellm.chat import Chat


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a generation cost. Sizes in bytes, times in seconds.

    Attributes:
        prompt_tokens: tokens of the prompt.
        cached_tokens: those of them that were still in the KV cache and cost nothing.
        completion_tokens: new tokens, an end token included.
        prefill_seconds: from the start until the prompt's logits were there.
        first_token_seconds: from the start until the first token.
        decode_seconds: from the first token to the last.
        forwards: times that a chunk or a token went through the layers.
        weight_passes: reads of all streamed weights; 0 when resident, a fraction where part of a pass was needed.
        bytes_read: from disk, read ahead included.
        read_seconds: in which at least one read was under way.
        waited_seconds: in which the arithmetic waited for the disk.
        resident_bytes: weights held in memory.
        peak_memory_bytes: the most that the process has held.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float
    forwards: int
    weight_passes: float
    bytes_read: int
    read_seconds: float
    waited_seconds: float
    resident_bytes: int
    peak_memory_bytes: int

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Tokens after the first, a second; None where there are none."""
        return (self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Token:
    """A new token and the text that it completes; the last one of an answer also says why it ended.

    ``finish_reason`` is ``stop`` (an end token or a stop text), ``length`` (max_tokens, or the context is full) or
    ``cancelled``; in the last case ``id`` may be None: the token only closes the answer.
    """

    id: int | None
    text: str
    logprob: float | None = None
    finish_reason: str | None = None
    stats: Stats | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: str
    stats: Stats


class LLM:
    """A loaded model. One generation runs at a time; others wait for it. ``with`` closes it."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, model: Model, plan: Plan, reader: Reader) -> None:
        self.checkpoint, self.config, self.tokenizer, self.plan = checkpoint, checkpoint.config, tokenizer, plan
        self.path: Path = checkpoint.folder.path
        self.eos_token_ids = checkpoint.eos_token_ids | tokenizer.eos_token_ids
        self._model, self._reader = model, reader
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._cancelled = threading.Event()
        self._closed = False
        self._caches: list[Cache] | None = None
        self._cached: list[int] = []

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

    def stream(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        *,
        reuse_cache: bool = False,
        on_prefill: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> Iterator[Token]:
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
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self._check(ids)
        if sampling.beams > 1:
            from edgellm.beam import beam_tokens

            return beam_tokens(self, ids, sampling)
        return self._stream(ids, sampling, reuse_cache=reuse_cache, on_prefill=on_prefill)

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

    def cancel(self) -> None:
        """End the generation that is running, from any thread; it closes with ``finish_reason`` ``cancelled``."""
        self._cancelled.set()

    def close(self) -> None:
        """Cancel what is running, and free weights, caches, threads and files. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._cancelled.set()
        if self._owner == threading.get_ident():  # our own unfinished stream: it cannot go on while we wait
            self._free()
            return
        with self._turn:
            self._free()

    def _free(self) -> None:
        self._model.layers.close()
        if isinstance(self._model.embed_tokens, PagedEmbedding):
            self._model.embed_tokens.close()
        self._reader.close()
        self._caches, self._cached = None, []
        del self._model

    def _check(self, ids: Sequence[int]) -> None:
        if self._closed:
            raise ClosedError("the model was closed")
        if not ids:
            raise ConfigError("the prompt is empty", hint="give at least one token")
        if not 0 <= min(ids) <= max(ids) < self.config.vocab_size:
            raise ConfigError(f"a token id is outside the vocabulary of {self.config.vocab_size}")
        if len(ids) > self.context:
            raise ContextError(
                f"the prompt has {len(ids)} tokens and the context {self.context}",
                hint=f"use a larger --context; the model's own limit is {self.config.max_position_embeddings}",
            )

    def _acquire(self) -> None:
        if self._owner == threading.get_ident():
            raise EdgeLLMError(
                "another stream of this model is unfinished in this thread", hint="finish it, or close it with .close()"
            )
        self._turn.acquire()
        self._owner = threading.get_ident()
        if self._closed:
            self._release()
            raise ClosedError("the model was closed")
        self._cancelled.clear()

    def _release(self) -> None:
        self._owner = None
        self._turn.release()

    def _prepare(self, ids: Sequence[int], new: int, *, reuse_cache: bool) -> tuple[list[Cache], int]:
        """The caches, and how many tokens of the prompt they hold already; the last one is always computed."""
        if self._caches is None:
            reserve = min(self.context, len(ids) + new)
            self._caches = make_caches(self.checkpoint, capacity=self.context, window=self.plan.context_window, reserve=reserve)
        common = 0
        if reuse_cache:
            for mine, theirs in zip(self._cached, ids[:-1], strict=False):
                if mine != theirs:
                    break
                common += 1
        if not all(cache.trim(common) for cache in self._caches):
            common = 0
            for cache in self._caches:
                cache.trim(0)
        return self._caches, common

    def _stream(
        self,
        ids: list[int],
        sampling: Sampling,
        *,
        reuse_cache: bool,
        on_prefill: Callable[[Progress], None] | None,
    ) -> Iterator[Token]:
        self._acquire()
        progress = Progress(len(ids))
        meter = _Meter(self._model, self._reader)
        decoder, stops = self.tokenizer.decoder(), StopFilter(sampling.stop)
        produced: list[int] = []
        caches, common = self._prepare(ids, sampling.max_tokens, reuse_cache=reuse_cache)
        self._cached = []
        most = min(sampling.max_tokens, self.context - len(ids) + 1)
        done = False

        def keep_going() -> bool:
            if on_prefill is not None and progress.first_token_at is None:
                on_prefill(progress)
            return not self._cancelled.is_set()

        try:
            steps = generate_steps(
                self._model,
                ids[common:],
                caches,
                sampling,
                chunk=self.plan.prefill_chunk,
                context=self.context,
                progress=progress,
                keep_going=keep_going,
                seen=ids,
            )
            for step in steps:
                produced.append(step.token)
                ended = step.token in self.eos_token_ids
                text = stops.add("" if ended else decoder.add(step.token))
                reason = "stop" if ended or stops.stopped else "length" if len(produced) == most else None
                if reason:
                    done = True
                    steps.close()
                    text += stops.add(decoder.finish()) + stops.finish()
                    yield Token(step.token, text, step.logprob, reason, self._stats(progress, meter, common, produced))
                    break
                yield Token(step.token, text, step.logprob)
            if not done:
                done = True
                if self._closed:
                    raise ClosedError("the model was closed during the answer")
                text = stops.add(decoder.finish()) + stops.finish()
                yield Token(None, text, None, "cancelled", self._stats(progress, meter, common, produced))
        finally:
            if not self._closed:
                self._keep([*ids, *produced], caches)
            self._release()

    def _keep(self, tokens: Sequence[int], caches: Sequence[Cache]) -> None:
        """Note which tokens the caches hold; after a failure in the middle of the layers they hold none."""
        offsets = {cache.offset for cache in caches}
        if len(offsets) == 1:
            self._cached = list(tokens[: offsets.pop()])
            return
        self._cached = []
        for cache in caches:
            cache.trim(0)

    def _stats(self, progress: Progress, meter: _Meter, cached: int, produced: Sequence[int]) -> Stats:
        now = time.perf_counter()
        first = progress.first_token_at or now
        last = progress.last_token_at or first
        return Stats(
            prompt_tokens=progress.prompt_tokens,
            cached_tokens=cached,
            completion_tokens=len(produced),
            prefill_seconds=(progress.prefill_ended_at or first) - progress.begun,
            first_token_seconds=first - progress.begun,
            decode_seconds=last - first,
            forwards=progress.forwards,
            weight_passes=meter.passes(),
            bytes_read=meter.bytes_read(),
            read_seconds=self._reader.busy_seconds - meter.busy,
            waited_seconds=meter.waited(),
            resident_bytes=self.plan.pinned_bytes + self.plan.outer_bytes + self.plan.slots * self.plan.slot_bytes,
            peak_memory_bytes=device.peak_process_memory(),
        )


class _Meter:
    """What reading has cost since a generation began."""

    def __init__(self, model: Model, reader: Reader) -> None:
        self._layers = model.layers if isinstance(model.layers, PagedLayers) else None
        self._table = model.embed_tokens if isinstance(model.embed_tokens, PagedEmbedding) else None
        self._reader = reader
        self.busy = reader.busy_seconds
        self._bytes, self._rows = reader.bytes_read, self._table.bytes_read if self._table else 0
        self._passes, self._waited = (self._layers.traffic.passes, self._layers.traffic.waited) if self._layers else (0.0, 0.0)

    def passes(self) -> float:
        return round(self._layers.traffic.passes - self._passes, 6) if self._layers else 0.0

    def waited(self) -> float:
        return self._layers.traffic.waited - self._waited if self._layers else 0.0

    def bytes_read(self) -> int:
        rows = self._table.bytes_read - self._rows if self._table else 0
        return self._reader.bytes_read - self._bytes + rows


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
    reader = reader or DiskReader()
    try:
        model = load_model(checkpoint, plan, reader, settings, progress=progress)
    except BaseException:
        reader.close()
        raise
    return LLM(checkpoint, tokenizer, model, plan, reader)


def plan_for(checkpoint: Checkpoint, settings: LoadSettings) -> Plan:
    """The plan that ``load`` follows on this machine. Raises MemoryBudgetError, ConfigError."""
    memory = device.read_memory()
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
    )


def fields_of(settings: type[Sampling | LoadSettings]) -> tuple[str, ...]:
    """The names of a settings class, for those who pass keywords on."""
    return tuple(field.name for field in fields(settings))
