"""The plan that a model is loaded by, and what it will cost a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgellm.console.units import size

JSON_NAMES: Mapping[str, str] = {"ring_buffers": "slots", "buffer_bytes": "slot_bytes"}
"""Attributes of a plan that ``--json`` calls otherwise, as it always has."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Bytes per second.

    Attributes:
        disk: direct reads of the model's files.
        weights: weights through the products of one token, the median.
        weights_at_worst: the same, of the slower measurements; None where only one is known.
        weights_at_best: of the fastest one.
    """

    disk: float
    weights: float
    weights_at_worst: float | None = None
    weights_at_best: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """A model's place inside a memory budget; sizes are in bytes.

    Attributes:
        budget: the memory that the plan stays within.
        resident: whether all weights are in memory.
        context: tokens that the KV caches have room for.
        context_window: tokens that attention looks back over, as set.
        kv_bits: bits per number in the KV caches; None where mlx-lm decides.
        kv_bits_chosen: whether the planner took fewer than usual, to pin more layers.
        pinned_in_8_bits: number of layers that would be pinned with KV caches of 8 bits; None where
            that is no more.
        beams: beams that these have room for, as set.
        prefill_chunk: maximum number of prompt tokens that go through a layer at once.
        pinned: numbers of the layers that stay in memory.
        streamed: numbers of the layers that are read in every pass.
        ring_buffers: buffers that these stream through.
        buffer_bytes: bytes of each buffer.
        embedding_resident: whether the embedding is in memory; else rows of it are read.
        pinned_bytes: bytes of the pinned layers' weights.
        outer_bytes: bytes of the weights outside the layers that are in memory.
        cache_bytes: bytes of the KV caches when full, those of beams included.
        working_bytes: bytes of hidden states and activations.
        draft_bytes: bytes of the draft model's weights.
        draft_cache_bytes: bytes of its KV caches when full.
        adapter_bytes: bytes of the adapter's numbers.
        total_bytes: bytes of all of that, and of the ring.
        model_bytes: bytes of all weights of the model.
        streamed_bytes: bytes read per token.
        weight_bytes_per_token: bytes of the weights that one token goes through.
        seconds_per_token: predicted time per token; None where no speed is known.
        seconds_at_best, seconds_at_worst: what it lies between, by how far the measurements of this
            machine's arithmetic were apart; None as before.
        bound_by: ``disk`` or ``arithmetic``, whichever takes longer.
    """

    budget: int
    resident: bool
    context: int
    context_window: int | None
    kv_bits: int | None
    beams: int
    prefill_chunk: int
    pinned: tuple[int, ...]
    streamed: tuple[int, ...]
    ring_buffers: int
    buffer_bytes: int
    embedding_resident: bool
    pinned_bytes: int
    outer_bytes: int
    cache_bytes: int
    working_bytes: int
    draft_bytes: int
    draft_cache_bytes: int
    adapter_bytes: int
    total_bytes: int
    model_bytes: int
    streamed_bytes: int
    weight_bytes_per_token: int
    seconds_per_token: float | None = None
    seconds_at_best: float | None = None
    seconds_at_worst: float | None = None
    bound_by: str | None = None
    kv_bits_chosen: bool = False
    pinned_in_8_bits: int | None = None

    def __repr__(self) -> str:
        """Return the plan in one line."""
        layers = len(self.pinned) + len(self.streamed)
        place = "all in memory"
        if not self.resident:
            place = f"{len(self.pinned)} of {layers} layers in memory"
        used = f"{size(self.total_bytes)} of {size(self.budget)}"
        return f"Plan({place}, {used}, context {self.context})"

    @property
    def kv_budget(self) -> int:
        """Bytes that KV caches may take: those planned, and what the budget leaves free."""
        return self.cache_bytes + self.budget - self.total_bytes

    def sequence_cache_bytes(self, tokens: int) -> int:
        """Return the bytes of one sequence's KV caches with this many tokens in them."""
        return self.cache_bytes * tokens // (self.context * caches_of(self.beams))

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as one JSON object."""
        record = {JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}
        record["layers"] = len(self.pinned) + len(self.streamed)
        record["bytes_per_token"] = self.streamed_bytes
        record["tokens_per_second"] = None
        if self.seconds_per_token:
            record["tokens_per_second"] = 1 / self.seconds_per_token
        return record


def caches_of(beams: int) -> int:
    """Return the sequences of a search of this many beams that have KV caches, the prompt's too."""
    if beams == 1:
        return 1
    return 1 + beams
