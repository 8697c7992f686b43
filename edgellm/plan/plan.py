"""A memory budget becomes a layout: what stays in memory, what is read anew for every token, and what that will cost.

A pass over the layers is a cyclic scan, for which keeping the most recently used layers never hits.
So as many layers as fit are pinned, spread evenly so that reads and arithmetic alternate, and the
others stream through a ring of slots.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgellm.device.machine import Memory
from edgellm.errors import MemoryBudgetError
from edgellm.plan.memory_estimate import MemoryEstimate
from edgellm.settings import PREFILL_CHUNK

CHUNK_STEP = 32
"""Tokens; prefill chunks are multiples of it, and at least as many."""

CONTEXT_SHARE = 0.25
"""Of the budget; what the KV cache may take where no context was asked for."""

CHUNK_SHARE = 0.1
"""Of the budget; what the activations of one prefill chunk may take."""

MINIMUM_CONTEXT = 128
RESIDENT_CONTEXT = 512
"""Tokens; where all weights fit and this many with them, nothing is streamed: memory is ten times as fast as a disk."""

MINIMUM_RESERVE = 256 << 20


@dataclass(frozen=True, slots=True)
class Speeds:
    """Bytes per second: direct reads of the model's files, and weights through a product of one token."""

    disk: float
    weights: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a budget buys. Sizes are in bytes, times in seconds; ``seconds_per_token`` is None where no speed is known."""

    budget: int
    resident: bool
    context: int
    context_window: int | None
    kv_bits: int | None
    prefill_chunk: int
    pinned: tuple[int, ...]
    streamed: tuple[int, ...]
    slots: int
    slot_bytes: int
    embedding_resident: bool
    pinned_bytes: int
    outer_bytes: int
    cache_bytes: int
    working_bytes: int
    draft_bytes: int
    draft_cache_bytes: int
    total_bytes: int
    model_bytes: int
    streamed_bytes: int
    weight_bytes_per_token: int
    seconds_per_token: float | None = None
    bound_by: str | None = None

    @property
    def kv_budget(self) -> int:
        """Bytes that KV caches may take: those planned for, and what the budget leaves free."""
        return self.cache_bytes + self.budget - self.total_bytes

    def as_dict(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        speed = self.seconds_per_token
        return asdict(self) | {
            "layers": len(self.pinned) + len(self.streamed),
            "bytes_per_token": self.streamed_bytes,
            "tokens_per_second": None if not speed else 1 / speed,
        }


def automatic_budget(memory: Memory) -> int:
    """The budget where none was given: what is free, less a reserve for the system, and at most what the GPU may use."""
    reserve = max(MINIMUM_RESERVE, memory.total // 10)
    free = max(memory.available - reserve, memory.available // 2)
    return min(free, memory.gpu_limit) if memory.gpu_limit else free


def make_plan(
    needs: MemoryEstimate,
    *,
    budget: int,
    slots: int,
    context: int | None = None,
    context_window: int | None = None,
    kv_bits: int | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
    speeds: Speeds | None = None,
) -> Plan:
    """Decide what is resident, pinned and streamed inside ``budget`` bytes.

    Args:
        needs: of the model.
        budget: bytes for weights, KV cache and activations together; the interpreter and its
            libraries come on top.
        slots: that the ring has where layers are streamed.
        context: tokens that the KV cache must have room for; None: what a quarter of the budget
            holds.
        context_window: tokens that attention looks back over, for the record.
        kv_bits: of the numbers in the KV cache, for the record.
        prefill_chunk: the most prompt tokens that go through a layer at once; less where the budget
            is small.
        speeds: for the prediction.

    Raises:
        MemoryBudgetError: not even the smallest layout fits; the hint says the smallest budget that
            would do.
    """
    everything = tuple(range(len(needs.layers)))
    draft = needs.draft_weights
    smallest = _smallest(needs, slots, context)
    for resident, (total, held, least) in zip((True, False), smallest, strict=True):
        if total > budget:
            continue
        room = budget - held
        share = min(int(budget * CONTEXT_SHARE), room * 3 // 4)
        tokens = context or max(least, _most_context(needs, share, room))
        chunk = _most_chunk(
            needs,
            prefill_chunk,
            tokens,
            min(int(budget * CHUNK_SHARE), room - needs.prompt(tokens)),
        )
        # Where context and chunk could be larger, their whole shares are kept free: with what they
        # really take, a larger budget, in which they are one step longer, could pin a layer less.
        prompt, activations = needs.prompt(tokens), needs.chunk(chunk, tokens)
        if context is None and tokens < needs.max_context:
            prompt = max(prompt, int(budget * CONTEXT_SHARE))
        if chunk < min(prefill_chunk, tokens):
            activations = max(activations, int(budget * CHUNK_SHARE))
        return _priced(
            needs,
            pinned=everything if resident else _pinned(needs, room - prompt - activations),
            context=tokens,
            prefill_chunk=chunk,
            budget=budget,
            context_window=context_window,
            kv_bits=kv_bits,
            slots=slots,
            speeds=speeds,
        )
    total, held, tokens = min(smallest)
    raise MemoryBudgetError(
        f"the budget is {megabytes(budget)}, and the least that this model runs in is {megabytes(total)}: "
        f"{megabytes(needs.outer)} for norm and head, {megabytes(held - needs.outer - draft)} for layers in transit, "
        f"{f'{megabytes(draft)} for the draft model, ' if draft else ''}"
        f"{megabytes(total - held)} for {tokens} tokens of context",
        hint=f"use --memory {megabytes(total).replace(' ', '')} or more, a shorter --context, or convert with fewer --bits",
    )


def least_budget(needs: MemoryEstimate, *, slots: int, context: int | None = None) -> int:
    """The smallest budget in bytes that ``make_plan`` takes; arguments are as there."""
    return min(_smallest(needs, slots, context))[0]


def megabytes(nbytes: int) -> str:
    """``1234 MB``, rounded up."""
    return f"{-(-nbytes // 1_000_000)} MB"


def spread(count: int, total: int) -> tuple[int, ...]:
    """``count`` of the numbers below ``total``, as evenly as they can lie."""
    return tuple((2 * number + 1) * total // (2 * count) for number in range(count))


def _smallest(needs: MemoryEstimate, slots: int, context: int | None) -> list[tuple[int, int, int]]:
    """Of the resident and of the paged layout: the least bytes, those of them for weights, and the tokens of context."""
    ring = min(slots, len(needs.layers)) * max(needs.layers)
    found = []
    for held, usual in ((needs.weights, RESIDENT_CONTEXT), (needs.outer + ring, MINIMUM_CONTEXT)):
        weights, least = held + needs.draft_weights, context or min(usual, needs.max_context)
        found.append(
            (weights + needs.prompt(least) + needs.chunk(CHUNK_STEP, least), weights, least)
        )
    return found


def _most_context(needs: MemoryEstimate, share: int, room: int) -> int:
    """The most tokens that fit into ``share``, and with a smallest chunk into ``room``; 0 where none do."""
    low, high = 0, needs.max_context
    while low < high:
        middle = (low + high + 1) // 2
        prompt = needs.prompt(middle)
        if prompt <= share and prompt + needs.chunk(CHUNK_STEP, middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _most_chunk(needs: MemoryEstimate, most: int, context: int, room: int) -> int:
    """The largest chunk that fits into ``room``: ``most``, or else a multiple of the step; at least one step."""
    if needs.chunk(most, context) <= room:
        return most
    return max(CHUNK_STEP, min(room // needs.chunk(1, context), most) // CHUNK_STEP * CHUNK_STEP)


def _pinned(needs: MemoryEstimate, room: int) -> tuple[int, ...]:
    """As many layers as fit, spread evenly; at least one streams, or the model would be resident."""
    for count in range(len(needs.layers) - 1, 0, -1):
        chosen = spread(count, len(needs.layers))
        if sum(needs.layers[index] for index in chosen) <= room:
            return chosen
    return ()


def _priced(
    needs: MemoryEstimate,
    *,
    pinned: tuple[int, ...],
    context: int,
    prefill_chunk: int,
    budget: int,
    context_window: int | None,
    kv_bits: int | None,
    slots: int,
    speeds: Speeds | None,
) -> Plan:
    streamed = tuple(index for index in range(len(needs.layers)) if index not in set(pinned))
    resident = not streamed
    slots = 0 if resident else min(slots, len(streamed))
    slot = max((needs.layers[index] for index in streamed), default=0)
    in_memory = resident or needs.tied
    outer = needs.weights - sum(needs.layers) if in_memory else needs.outer
    pinned_bytes = sum(needs.layers[index] for index in pinned)
    streamed_bytes = sum(needs.layers[index] for index in streamed)
    row = 0 if in_memory else needs.embedding_row
    caches = needs.cache(context)
    draft_caches = needs.draft_cache(context)
    working = needs.prompt(context) - caches - draft_caches + needs.chunk(prefill_chunk, context)
    weights = sum(needs.layers) + needs.outer
    seconds, bound = None, None
    if speeds is not None:
        reading, computing = (streamed_bytes + row) / speeds.disk, weights / speeds.weights
        seconds, bound = max((reading, "disk"), (computing, "arithmetic"))
    return Plan(
        budget=budget,
        resident=resident,
        context=context,
        context_window=context_window,
        kv_bits=kv_bits,
        prefill_chunk=prefill_chunk,
        pinned=pinned,
        streamed=streamed,
        slots=slots,
        slot_bytes=slot,
        embedding_resident=in_memory,
        pinned_bytes=pinned_bytes,
        outer_bytes=outer,
        cache_bytes=caches,
        working_bytes=working,
        draft_bytes=needs.draft_weights,
        draft_cache_bytes=draft_caches,
        total_bytes=pinned_bytes
        + slots * slot
        + outer
        + caches
        + working
        + needs.draft_weights
        + draft_caches,
        model_bytes=needs.weights,
        streamed_bytes=streamed_bytes + row,
        weight_bytes_per_token=weights,
        seconds_per_token=seconds,
        bound_by=bound,
    )
