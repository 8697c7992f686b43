"""One text of a batch on its way, and what a batch needs of the model that it runs on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.device import machine as device
from edgellm.device.exclusive import ModelLock
from edgellm.generation.decode import Progress
from edgellm.generation.output import CostMeter, Stats, Token
from edgellm.generation.text_stream import TextStream
from edgellm.kv_cache.cache import Cache
from edgellm.models.llama import Model
from edgellm.sampling.sampler import Sampler
from edgellm.settings import Sampling
from edgellm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Seating:
    """What a batch needs of the model that it runs on.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        turn: in which it runs.
        check: raises what is wrong with a prompt.
        end_tokens: that end a text.
        context: tokens that prompt and answer of a sequence may have together.
        chunk: prompt tokens that go through a layer at once.
        room: bytes for the KV caches of all sequences.
        at_once: sequences at the most; None for as many as there is room for.
        caches: makes a sequence's caches with room for so many tokens.
        cache_bytes: what those take.
        bill: begins to count what a sequence costs.
    """

    model: Model
    tokenizer: Tokenizer
    turn: ModelLock
    check: Callable[[Sequence[int]], None]
    end_tokens: frozenset[int]
    context: int
    chunk: int
    room: int
    caches: Callable[[int], list[Cache]]
    cache_bytes: Callable[[int], int]
    bill: Callable[[], CostMeter]
    at_once: int | None = None


class Seat:
    """One text on its way: its tokens, and how many of them are in its caches."""

    def __init__(
        self, seating: Seating, ids: Sequence[int], sampling: Sampling, *, continues: bool = False
    ) -> None:
        self.sampling, self.tokens, self.prompt = sampling, list(ids), len(ids)
        self.limit = min(sampling.max_tokens, max(1, seating.context - len(ids)))
        self.room = min(seating.context, len(ids) + self.limit)
        self.nbytes = seating.cache_bytes(self.room)
        self.cancelled = False
        self.caches: list[Cache] = []
        self.done = 0
        self.sampler: Sampler | None = None
        self.progress, self._bill = Progress(len(ids)), seating.bill()
        decoder = seating.tokenizer.decoder(continues=continues)
        self._writing = TextStream(
            decoder, stop=sampling.stop, end_tokens=seating.end_tokens, limit=self.limit
        )

    def join(self, seating: Seating) -> None:
        """Take memory; what it costs is counted from here on."""
        self.caches, self._bill = seating.caches(self.room), seating.bill()
        self.sampler = Sampler(
            self.sampling, self.tokens, seating.model.config.vocab_size, lazy=device.has_gpu()
        )

    def begin_again(self) -> None:
        """Forget what is in the caches: a pass that failed has left them half-way."""
        for cache in self.caches:
            cache.trim(0)
        self.done = 0

    def take(self, token: int, logprob: float | None) -> Token:
        """Go on with a token."""
        progress = self.progress
        progress.last_token_at = time.perf_counter()
        progress.first_token_at = progress.first_token_at or progress.last_token_at
        self.tokens.append(token)
        text, reason = self._writing.add(token)
        return Token(token, text, logprob, reason, self._stats() if reason else None)

    def cancel(self) -> Token:
        """The token that closes an answer before its end."""
        return Token(None, self._writing.broken_off(), None, "cancelled", self._stats())

    @property
    def produced(self) -> int:
        """New tokens."""
        return len(self.tokens) - self.prompt

    def _stats(self) -> Stats:
        return self._bill.stats(self.progress, cached=0, produced=self.produced)
