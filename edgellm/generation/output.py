"""What an answer is made of: tokens, the reason for its end, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.device import machine as device
from edgellm.errors import EdgeLLMError
from edgellm.generation.decode import Progress
from edgellm.models.llama import Model
from edgellm.models.paged_layers import PagedEmbedding, PagedLayers
from edgellm.plan.plan import Plan
from edgellm.reading.disk_reader import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a generation cost. Sizes in bytes, times in seconds.

    Attributes:
        prompt_tokens: tokens of the prompt.
        cached_tokens: those of them that were still in the KV cache and cost nothing.
        restored_tokens: those of the cached ones that came from the disk.
        completion_tokens: new tokens, an end token included.
        prefill_seconds: from the start until the prompt's logits were there.
        first_token_seconds: from the start until the first token.
        decode_seconds: from the first token to the last.
        forwards: times that a chunk, or a token with the guesses after it, went through the layers.
        decode_passes: those of them after the prompt.
        drafted_tokens: guesses that were verified.
        accepted_tokens: guesses that were right.
        weight_passes: reads of all streamed weights; 0 when resident, a fraction where part of a
            pass was needed.
        bytes_read: from disk, read ahead included.
        read_seconds: in which at least one read was under way.
        waited_seconds: in which the arithmetic waited for the disk.
        resident_bytes: weights held in memory.
        peak_memory_bytes: the most that the process has held.
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
        """Tokens after the first, a second; None where there are none."""
        return (
            (self.completion_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else None
        )

    @property
    def tokens_per_weight_pass(self) -> float | None:
        """Tokens after the first, a pass through the weights; None where there are none."""
        return (self.completion_tokens - 1) / self.decode_passes if self.decode_passes else None

    @property
    def acceptance(self) -> float | None:
        """The share of the verified guesses that was right; None where there were none."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None


@dataclass(frozen=True, slots=True)
class Token:
    """A new token and the text that it completes; the last one of an answer also says why it ended.

    ``finish_reason`` is ``stop`` (an end token or a stop text), ``length`` (max_tokens, or the
    context is full) or ``cancelled``; in the last case ``id`` may be None: the token only closes
    the answer. In a batch it may be ``error``.
    """

    id: int | None
    text: str
    logprob: float | None = None
    finish_reason: str | None = None
    stats: Stats | None = None
    error: EdgeLLMError | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer; ``error`` says why there is none where ``finish_reason`` is ``error``."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: str
    stats: Stats
    error: EdgeLLMError | None = None


def completed(tokens: Sequence[Token]) -> Completion:
    """The answer that some tokens make, the last of which closes it."""
    last = tokens[-1]
    assert last.finish_reason is not None, "the last token closes the answer"
    assert last.stats is not None, "and says what it cost"
    return Completion(
        "".join(token.text for token in tokens),
        tuple(tokens),
        last.finish_reason,
        last.stats,
        last.error,
    )


class CostMeter:
    """What a generation costs, from now on."""

    def __init__(self, model: Model, reader: Reader, plan: Plan) -> None:
        self._layers = model.layers if isinstance(model.layers, PagedLayers) else None
        self._table = model.embed_tokens if isinstance(model.embed_tokens, PagedEmbedding) else None
        self._reader, self._plan = reader, plan
        self._before = self._counts()

    def stats(self, progress: Progress, *, cached: int, produced: int, restored: int = 0) -> Stats:
        """The cost so far of ``produced`` tokens after a prompt of which ``cached`` tokens cost nothing."""
        now = time.perf_counter()
        first = progress.first_token_at or now
        last = progress.last_token_at or first
        passes, waited, read, busy = (
            after - before for after, before in zip(self._counts(), self._before, strict=True)
        )
        return Stats(
            prompt_tokens=progress.prompt_tokens,
            cached_tokens=cached,
            restored_tokens=restored,
            completion_tokens=produced,
            prefill_seconds=(progress.prefill_ended_at or first) - progress.begun,
            first_token_seconds=first - progress.begun,
            decode_seconds=last - first,
            forwards=progress.forwards,
            decode_passes=progress.passes,
            drafted_tokens=progress.drafted,
            accepted_tokens=progress.accepted,
            weight_passes=round(passes, 6),
            bytes_read=int(read),
            read_seconds=busy,
            waited_seconds=waited,
            resident_bytes=self._plan.pinned_bytes
            + self._plan.outer_bytes
            + self._plan.slots * self._plan.slot_bytes
            + self._plan.draft_bytes,
            peak_memory_bytes=device.peak_process_memory(),
        )

    def _counts(self) -> tuple[float, float, int, float]:
        """Passes, seconds waited, bytes read, seconds of reading; since the model was loaded."""
        traffic = self._layers.traffic if self._layers else None
        read = self._reader.bytes_read + (self._table.bytes_read if self._table else 0)
        return (
            traffic.passes if traffic else 0.0,
            traffic.waited if traffic else 0.0,
            read,
            self._reader.busy_seconds,
        )
