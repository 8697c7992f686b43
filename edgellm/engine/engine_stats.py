"""The figures of an engine: what its sequences have cost, and the bytes of their KV caches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KVBytes:
    """The bytes of an engine's KV caches.

    Attributes:
        in_use: those of running sequences: their tokens, and a block of new ones each.
        kept: those of ended sequences, kept for prompts that begin with the same tokens. They
            are freed, least recently used first, when running sequences need the memory.
        budget: the plan's budget for both.
    """

    in_use: int
    kept: int
    budget: int


@dataclass(slots=True, kw_only=True)
class EngineStats:
    """The cost of all sequences so far. Sizes in bytes, times in seconds.

    Attributes:
        sequences: sequences that have ended.
        most_at_once: maximum number of sequences in memory together.
        prompt_tokens: prompt tokens that went through the model.
        cached_tokens: prompt tokens that were already in a KV cache and cost nothing.
        completion_tokens: new tokens of all sequences.
        preemptions: times that a running sequence gave its memory to one that came before it.
        steps: steps that were computed.
        seconds: time in which steps were computed.
        passes: passes over the weights of all layers.
        weight_passes: reads of all streamed weights; 0 when resident.
        bytes_read: bytes read from disk.
    """

    sequences: int = 0
    most_at_once: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    seconds: float = 0.0
    passes: int = 0
    weight_passes: float = 0.0
    bytes_read: int = 0

    @property
    def tokens_per_second(self) -> float | None:
        """New tokens per second, prompts' time included; None where nothing was computed."""
        if self.seconds <= 0:
            return None
        return self.completion_tokens / self.seconds

    @property
    def tokens_per_weight_pass(self) -> float | None:
        """New tokens per pass over the weights, prompts' included; None where there were none."""
        if self.passes == 0:
            return None
        return self.completion_tokens / self.passes
