"""A memory budget becomes a plan: what stays in memory, what is read again for every token.

A pass over the layers is a cyclic scan, for which keeping the most recently used layers never hits.
So as many layers as fit are pinned, spread evenly so that reads and arithmetic alternate, and the
others stream through a ring of buffers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import partial

from edgellm.console.units import size
from edgellm.device.machine import Memory
from edgellm.errors import MemoryBudgetError
from edgellm.memory_plan.memory_estimate import MemoryEstimate
from edgellm.memory_plan.plan import Plan, Speeds
from edgellm.settings import PREFILL_CHUNK

CHUNK_STEP = 32
"""Tokens; prefill chunks are multiples of it, and at least as many."""

CONTEXT_SHARE = 0.25
"""Fraction of the budget that the KV cache of a resident model may take where no context was
asked for."""

PAGED_CONTEXT_SHARE = 0.125
"""The same of a paged model: what it does not take pins layers."""

PAGED_CHUNK = 128
"""Tokens of a prefill chunk that a paged model has room for before layers are pinned.

A prompt reads each layer once in chunks of any length; in these it computes about a tenth longer
than in chunks of 512.
"""

CHUNK_SHARE = 0.1
"""Fraction of the budget that the activations of one prefill chunk may take."""

MINIMUM_CONTEXT = 128
"""Tokens that a paged model has room for at least."""

RESIDENT_CONTEXT = 512
"""Tokens; where all weights fit with this many tokens, nothing is streamed: memory is ten
times as fast as a disk."""

MINIMUM_RESERVE = 256 << 20
"""Bytes that an automatic budget leaves to the system at least."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least that a model runs in, resident or paged.

    Attributes:
        resident: whether all weights are in memory.
        weight_bytes: of the weights that are always in memory: with the ring, draft and adapter.
        context: tokens that there is room for.
        total_bytes: with that context and the smallest prefill chunk.
    """

    resident: bool
    weight_bytes: int
    context: int
    total_bytes: int


def automatic_budget(memory: Memory) -> int:
    """Return the budget where none was given.

    It is what is free less a reserve for the system, and at most what the GPU may use.
    """
    reserve = max(MINIMUM_RESERVE, memory.total // 10)
    # where little is free, half of it is taken, whatever that leaves to the system
    budget = max(memory.available - reserve, memory.available // 2)
    return min(budget, memory.gpu_limit or budget)


def make_plan(
    estimate: MemoryEstimate,
    *,
    budget: int,
    ring_buffers: int,
    context: int | None = None,
    context_window: int | None = None,
    kv_bits: int | None = None,
    beams: int = 1,
    prefill_chunk: int = PREFILL_CHUNK,
    speeds: Speeds | None = None,
) -> Plan:
    """Decide what is resident, pinned and streamed inside ``budget`` bytes.

    Args:
        estimate: of the model.
        budget: bytes for weights, KV cache and activations together; the interpreter and its
            libraries come on top.
        ring_buffers: buffers that the ring has where layers are streamed.
        context: tokens that the KV cache must have room for; None: what its share of the budget
            holds.
        context_window: tokens that attention looks back over, for the record.
        kv_bits: of the numbers in the KV cache, for the record.
        beams: beams that the estimate's KV caches are for, for the record.
        prefill_chunk: the most prompt tokens that go through a layer at once; less where the budget
            is small.
        speeds: for the prediction.

    Raises:
        MemoryBudgetError: the model runs in no way inside the budget; the hint says the smallest
            budget that would do.
    """
    minimum = _best_minimum(estimate, budget, ring_buffers, context)
    # the prompt, a chunk's activations and the pinned layers share what the minimum leaves
    free_bytes = budget - minimum.weight_bytes
    tokens = context or _choose_context(estimate, minimum, budget)
    prefill_bytes = estimate.prefill_bytes(tokens, resident=minimum.resident)
    chunk_share = int(budget * CHUNK_SHARE) + estimate.converted_bytes
    pinned, pinned_bytes = tuple(range(len(estimate.layer_bytes))), 0
    if not minimum.resident:
        # Where the context could be longer, its whole share is kept free: with what it really
        # takes, a larger budget, in which it is one token longer, could pin a layer less.
        kept = prefill_bytes
        if context is None and tokens < estimate.max_context:
            kept = max(kept, int(budget * PAGED_CONTEXT_SHARE))
        kept += _least_activation_bytes(estimate, prefill_chunk, tokens, chunk_share)
        pinned = _choose_pinned(estimate, free_bytes - kept)
        pinned_bytes = sum(estimate.layer_bytes[index] for index in pinned)
    # room for activations: their share, or what prompt and pinned layers leave
    chunk_room = min(chunk_share, free_bytes - prefill_bytes - pinned_bytes)
    chunk = _largest_chunk(estimate, prefill_chunk, tokens, chunk_room)
    return _fill_in(
        estimate,
        pinned=pinned,
        context=tokens,
        prefill_chunk=chunk,
        budget=budget,
        context_window=context_window,
        kv_bits=kv_bits,
        beams=beams,
        ring_buffers=ring_buffers,
        speeds=speeds,
    )


def least_budget(estimate: MemoryEstimate, *, ring_buffers: int, context: int | None = None) -> int:
    """Return the smallest budget in bytes that ``make_plan`` takes; arguments are as there."""
    return min(minimum.total_bytes for minimum in _minimums(estimate, ring_buffers, context))


def spread(count: int, total: int) -> tuple[int, ...]:
    """Return ``count`` of the numbers below ``total``, as evenly as they can lie."""
    # the middles of ``count`` equal parts of the range
    return tuple((2 * part + 1) * total // (2 * count) for part in range(count))


def _minimums(estimate: MemoryEstimate, ring_buffers: int, context: int | None) -> list[Minimum]:
    """Return the least that the model runs in resident, and paged where it can be."""
    if not estimate.streams:
        usual = MINIMUM_CONTEXT
        return [_minimum(estimate, estimate.weight_bytes, context, usual, resident=True)]
    # any buffer may hold any layer; more buffers than layers would hold one twice
    ring_bytes = min(ring_buffers, len(estimate.layer_bytes)) * max(estimate.layer_bytes)
    paged_bytes = estimate.outer_bytes + ring_bytes
    return [
        _minimum(estimate, estimate.weight_bytes, context, RESIDENT_CONTEXT, resident=True),
        _minimum(estimate, paged_bytes, context, MINIMUM_CONTEXT, resident=False),
    ]


def _minimum(
    estimate: MemoryEstimate, model_bytes: int, context: int | None, usual: int, *, resident: bool
) -> Minimum:
    context = context or min(usual, estimate.max_context)
    weight_bytes = model_bytes + estimate.draft_weight_bytes + estimate.adapter_bytes
    activation_bytes = estimate.activation_bytes(CHUNK_STEP, context)
    prefill_bytes = estimate.prefill_bytes(context, resident=resident)
    total_bytes = weight_bytes + prefill_bytes + activation_bytes
    return Minimum(resident, weight_bytes, context, total_bytes)


def _best_minimum(
    estimate: MemoryEstimate, budget: int, ring_buffers: int, context: int | None
) -> Minimum:
    """Return the resident minimum if it fits, else the paged one. Raises MemoryBudgetError."""
    minimums = _minimums(estimate, ring_buffers, context)
    for minimum in minimums:
        if minimum.total_bytes <= budget:
            return minimum
    least = min(minimums, key=lambda minimum: minimum.total_bytes)
    megabytes = -(-least.total_bytes // 1_000_000)
    if not estimate.streams:
        raise MemoryBudgetError(
            f"the budget is {size(budget)}, and this model needs {size(least.total_bytes)}: "
            f"{size(least.weight_bytes)} for its weights, all of which mlx-lm holds in memory, "
            f"and {size(least.total_bytes - least.weight_bytes)} for "
            f"{least.context} tokens of context",
            hint=f"use --memory {megabytes}MB or more, a shorter --context, "
            "or the model in fewer bits (mlx_lm.convert makes such a folder)",
        )
    beside = ""
    if estimate.draft_weight_bytes:
        beside += f"{size(estimate.draft_weight_bytes)} for the draft model, "
    if estimate.adapter_bytes:
        beside += f"{size(estimate.adapter_bytes)} for the adapter, "
    layer_bytes = least.weight_bytes - estimate.outer_bytes
    layer_bytes -= estimate.draft_weight_bytes + estimate.adapter_bytes
    raise MemoryBudgetError(
        f"the budget is {size(budget)}, and this model needs at least "
        f"{size(least.total_bytes)}: {size(estimate.outer_bytes)} for norm and head, "
        f"{size(layer_bytes)} for layers in transit, {beside}"
        f"{size(least.total_bytes - least.weight_bytes)} for "
        f"{least.context} tokens of context",
        hint=f"use --memory {megabytes}MB or more, "
        "a shorter --context, or convert with fewer --bits",
    )


def _choose_context(estimate: MemoryEstimate, minimum: Minimum, budget: int) -> int:
    """Return the tokens of context where none were asked for: what their share of memory holds."""
    free_bytes = budget - minimum.weight_bytes
    share = CONTEXT_SHARE
    if not minimum.resident:
        share = PAGED_CONTEXT_SHARE
    # of a small budget a quarter stays free for activations
    most = min(int(budget * share), free_bytes * 3 // 4)

    def is_too_long(tokens: int) -> bool:
        prefill_bytes = estimate.prefill_bytes(tokens, resident=minimum.resident)
        with_chunk = prefill_bytes + estimate.activation_bytes(CHUNK_STEP, tokens)
        return prefill_bytes > most or with_chunk > free_bytes

    # what a prompt takes grows with its tokens
    fitting = bisect_left(range(1, estimate.max_context + 1), True, key=is_too_long)
    return max(minimum.context, fitting)


def _least_activation_bytes(
    estimate: MemoryEstimate, prefill_chunk: int, context: int, share: int
) -> int:
    """Return the bytes of activations that come before pinned layers: of a small chunk."""
    small = estimate.activation_bytes(min(prefill_chunk, PAGED_CHUNK), context)
    least = estimate.activation_bytes(CHUNK_STEP, context)
    return max(least, min(small, share))


def _largest_chunk(estimate: MemoryEstimate, most: int, context: int, free_bytes: int) -> int:
    """Return the tokens of the largest prefill chunk that fits.

    It is ``most``, or else a multiple of the step; at least one step.
    """
    if estimate.activation_bytes(most, context) <= free_bytes:
        return most
    sizes = range(CHUNK_STEP, most + 1, CHUNK_STEP)
    nbytes = partial(estimate.activation_bytes, context=context)
    return CHUNK_STEP * max(1, bisect_right(sizes, free_bytes, key=nbytes))


def _choose_pinned(estimate: MemoryEstimate, free_bytes: int) -> tuple[int, ...]:
    """Return as many layers as fit, spread evenly; at least one streams."""
    layers = len(estimate.layer_bytes)
    # with all of them pinned the model would be resident, which was found not to fit
    for count in range(layers - 1, 0, -1):
        pinned = spread(count, layers)
        if sum(estimate.layer_bytes[index] for index in pinned) <= free_bytes:
            return pinned
    return ()


def _fill_in(
    estimate: MemoryEstimate,
    *,
    pinned: tuple[int, ...],
    context: int,
    prefill_chunk: int,
    budget: int,
    context_window: int | None,
    kv_bits: int | None,
    beams: int,
    ring_buffers: int,
    speeds: Speeds | None,
) -> Plan:
    """Return the plan with these layers pinned: what it takes, and what it costs a token."""
    layer_bytes = estimate.layer_bytes
    streamed = tuple(index for index in range(len(layer_bytes)) if index not in set(pinned))
    pinned_bytes = sum(layer_bytes[index] for index in pinned)
    streamed_bytes = sum(layer_bytes[index] for index in streamed)
    ring_buffers = min(ring_buffers, len(streamed))
    buffer_bytes = max((layer_bytes[index] for index in streamed), default=0)
    embedding_resident = not streamed or estimate.tied
    outer_bytes = estimate.outer_bytes
    if embedding_resident:
        outer_bytes = estimate.weight_bytes - sum(layer_bytes)
    else:
        # of the embedding, only the token's row is read
        streamed_bytes += estimate.embedding_row_bytes
    kv_bytes = estimate.kv_bytes(context)
    draft_kv_bytes = estimate.draft_kv_bytes(context)
    prefill_bytes = estimate.prefill_bytes(context, resident=not streamed)
    working_bytes = prefill_bytes - kv_bytes - draft_kv_bytes
    working_bytes += estimate.activation_bytes(prefill_chunk, context)
    weight_bytes = pinned_bytes + ring_buffers * buffer_bytes + outer_bytes
    weight_bytes += estimate.draft_weight_bytes + estimate.adapter_bytes
    weight_bytes_per_token = sum(layer_bytes) + estimate.outer_bytes + estimate.adapter_bytes
    seconds_per_token, seconds_at_best, seconds_at_worst, bound_by = None, None, None, None
    if speeds is not None:
        # the disk reads while the arithmetic computes: the slower of the two is waited for
        disk_seconds = streamed_bytes / speeds.disk
        arithmetic_seconds = weight_bytes_per_token / speeds.weights
        seconds_per_token = max(disk_seconds, arithmetic_seconds)
        best, worst = speeds.weights_at_best, speeds.weights_at_worst
        seconds_at_best = max(disk_seconds, weight_bytes_per_token / (best or speeds.weights))
        seconds_at_worst = max(disk_seconds, weight_bytes_per_token / (worst or speeds.weights))
        bound_by = "disk" if disk_seconds >= arithmetic_seconds else "arithmetic"
    return Plan(
        budget=budget,
        resident=not streamed,
        context=context,
        context_window=context_window,
        kv_bits=kv_bits,
        beams=beams,
        prefill_chunk=prefill_chunk,
        pinned=pinned,
        streamed=streamed,
        ring_buffers=ring_buffers,
        buffer_bytes=buffer_bytes,
        embedding_resident=embedding_resident,
        pinned_bytes=pinned_bytes,
        outer_bytes=outer_bytes,
        cache_bytes=kv_bytes,
        working_bytes=working_bytes,
        draft_bytes=estimate.draft_weight_bytes,
        draft_cache_bytes=draft_kv_bytes,
        adapter_bytes=estimate.adapter_bytes,
        total_bytes=weight_bytes + working_bytes + kv_bytes + draft_kv_bytes,
        model_bytes=estimate.weight_bytes,
        streamed_bytes=streamed_bytes,
        weight_bytes_per_token=weight_bytes_per_token,
        seconds_per_token=seconds_per_token,
        seconds_at_best=seconds_at_best,
        seconds_at_worst=seconds_at_worst,
        bound_by=bound_by,
    )
