"""The progress of a generation while it runs, and what it has cost in the end."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from edgellm.device import machine as device
from edgellm.memory_plan.plan import Plan
from edgellm.models.embedding import PagedEmbedding
from edgellm.models.model import Model
from edgellm.reading.disk_reader import Reader
from edgellm.reading.paged_groups import Streaming, Traffic

PrefillCallback = Callable[["Progress"], None]
"""Called with the progress of a generation before and while its prompt is computed."""


@dataclass(slots=True)
class Progress:
    """Progress of a generation. Times are in seconds, from ``time.perf_counter``.

    Attributes:
        prompt_tokens: tokens of the prompt.
        started_at: when it began.
        prefill_done: tokens of the prompt that went through the model.
        prefill_ended_at: when the prompt's logits were there.
        first_token_at: when the first token was there.
        last_token_at: when the latest token was there.
        forwards: times that a chunk, or a token and its draft tokens, went through the layers.
        decode_passes: those of them after the prompt.
        drafted_tokens: draft tokens that were verified.
        accepted_tokens: those of them that were accepted.
        on_prefill: called before each chunk of the prompt, or once where all go at once.
    """

    prompt_tokens: int
    on_prefill: PrefillCallback | None = None
    started_at: float = field(default_factory=time.perf_counter)
    prefill_done: int = 0
    prefill_ended_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    forwards: int = 0
    decode_passes: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def report_prefill(self) -> None:
        """Call ``on_prefill``, if there is one."""
        if self.on_prefill is not None:
            self.on_prefill(self)

    def skip(self, seconds: float) -> None:
        """Leave out time in which others' answers were computed, or nobody asked for tokens."""
        self.started_at += seconds
        if self.prefill_ended_at is not None:
            self.prefill_ended_at += seconds
        if self.first_token_at is not None:
            self.first_token_at += seconds
        if self.last_token_at is not None:
            self.last_token_at += seconds

    def record_token(self) -> float:
        """Note that a token is there now; return the time."""
        now = time.perf_counter()
        if self.first_token_at is None:
            self.first_token_at = now
        self.last_token_at = now
        return now


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The cost of a generation. Sizes in bytes, times in seconds.

    Attributes:
        prompt_tokens: tokens of the prompt.
        cached_tokens: those of them that were still in the KV cache and cost nothing.
        restored_tokens: those of the cached ones that came from disk.
        completion_tokens: new tokens, an end token included.
        prefill_seconds: from the start until the prompt's logits were there.
        first_token_seconds: from the start until the first token.
        decode_seconds: from the first token to the last.
        forwards: times that a chunk, or a token and its draft tokens, went through the layers.
        decode_passes: those of them after the prompt.
        drafted_tokens: draft tokens that were verified.
        accepted_tokens: those of them that were accepted.
        weight_passes: reads of all streamed weights; 0 when resident, a fraction where part of a
            pass was needed.
        bytes_read: bytes read from disk, read-ahead included.
        read_seconds: time in which at least one read was under way.
        waited_seconds: time in which the arithmetic waited for the disk.
        resident_bytes: weights held in memory.
        peak_memory_bytes: peak memory of the process.
    """

    prompt_tokens: int
    cached_tokens: int
    restored_tokens: int
    completion_tokens: int
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float
    forwards: int
    decode_passes: int
    drafted_tokens: int
    accepted_tokens: int
    weight_passes: float
    bytes_read: int
    read_seconds: float
    waited_seconds: float
    resident_bytes: int
    peak_memory_bytes: int

    @property
    def decode_tokens_per_second(self) -> float | None:
        """Tokens per second after the first token; None where there are none."""
        if self.decode_seconds <= 0:
            return None
        return (self.completion_tokens - 1) / self.decode_seconds

    @property
    def tokens_per_weight_pass(self) -> float | None:
        """Tokens per pass over the weights after the first token; None where there are none."""
        if self.decode_passes == 0:
            return None
        return (self.completion_tokens - 1) / self.decode_passes

    @property
    def acceptance(self) -> float | None:
        """The share of verified draft tokens that were accepted; None where there were none."""
        if self.drafted_tokens == 0:
            return None
        return self.accepted_tokens / self.drafted_tokens


class _Counters(NamedTuple):
    """Counters of a model, which run from when it is loaded on."""

    weight_passes: float
    waited_seconds: float
    bytes_read: int
    read_seconds: float


class CostMeter:
    """Counts what a generation costs, from when it is made on.

    Args:
        model: the model that generates.
        reader: reads its streamed weights.
        plan: the plan that the model was loaded with.
    """

    def __init__(self, model: Model, reader: Reader, plan: Plan) -> None:
        self._model = model
        self._reader = reader
        self._plan = plan
        self._before = self._counters()
        self._stopped: _Counters | None = None

    def stop(self) -> None:
        """Count nothing from now on."""
        if self._stopped is None:
            self._stopped = self._counters()

    def go_on(self) -> None:
        """Count again after ``stop``."""
        if self._stopped is None:
            return
        spent = (now - before for now, before in zip(self._stopped, self._before, strict=True))
        self._before = _Counters(*map(operator.sub, self._counters(), spent))
        self._stopped = None

    def snapshot(
        self, progress: Progress, *, cached: int = 0, restored: int = 0, completion_tokens: int = 0
    ) -> Stats:
        """Return the cost so far.

        Args:
            progress: the progress of the generation.
            cached: tokens of the prompt that cost nothing.
            restored: those of the cached ones that came from the disk.
            completion_tokens: new tokens so far.
        """
        now = time.perf_counter()
        first_token_at = progress.first_token_at or now
        last_token_at = progress.last_token_at or first_token_at
        prefill_ended_at = progress.prefill_ended_at or first_token_at
        before = self._before
        after = self._stopped or self._counters()
        plan = self._plan
        return Stats(
            prompt_tokens=progress.prompt_tokens,
            cached_tokens=cached,
            restored_tokens=restored,
            completion_tokens=completion_tokens,
            prefill_seconds=prefill_ended_at - progress.started_at,
            first_token_seconds=first_token_at - progress.started_at,
            decode_seconds=last_token_at - first_token_at,
            forwards=progress.forwards,
            decode_passes=progress.decode_passes,
            drafted_tokens=progress.drafted_tokens,
            accepted_tokens=progress.accepted_tokens,
            # passes are sums of layers' shares, which float arithmetic leaves a little off
            weight_passes=round(after.weight_passes - before.weight_passes, 6),
            bytes_read=after.bytes_read - before.bytes_read,
            read_seconds=after.read_seconds - before.read_seconds,
            waited_seconds=after.waited_seconds - before.waited_seconds,
            resident_bytes=plan.pinned_bytes
            + plan.outer_bytes
            + plan.ring_buffers * plan.buffer_bytes
            + plan.draft_bytes
            + plan.adapter_bytes,
            peak_memory_bytes=device.peak_process_memory(),
        )

    def _counters(self) -> _Counters:
        traffic = Traffic()
        if isinstance(self._model.layers, Streaming):
            traffic = self._model.layers.traffic
        bytes_read = self._reader.bytes_read
        if isinstance(self._model.embed_tokens, PagedEmbedding):
            bytes_read += self._model.embed_tokens.bytes_read
        return _Counters(traffic.passes, traffic.waited, bytes_read, self._reader.busy_seconds)
