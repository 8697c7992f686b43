"""A memory budget becomes a layout: what stays in memory, what is read anew for every token, and what that will cost.

A pass over the layers is a cyclic scan, for which keeping the most recently used layers never hits. So as many layers as fit
are pinned, spread evenly so that reads and arithmetic alternate, and the others stream through a ring of slots.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from edgellm.cache import cache_bytes
from edgellm.checkpoint import Checkpoint
from edgellm.config import PREFILL_CHUNK
from edgellm.device import Memory
from edgellm.errors import MemoryBudgetError
from edgellm.slot import PAGE

MINIMUM_CHUNK = 32
CONTEXT_SHARE = 0.25
"""Of the budget; what the KV cache may take where no context was asked for."""

CHUNK_SHARE = 0.1
"""Of the budget; what the activations of one prefill chunk may take."""

MINIMUM_CONTEXT = 128
MINIMUM_RESERVE = 256 << 20


@dataclass(frozen=True, slots=True)
class Speeds:
    """Bytes per second: direct reads of the model's files, and weights through a product of one token."""

    disk: float
    weights: float


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model needs, in bytes, from its checkpoint alone."""

    layers: tuple[int, ...]
    embedding: int
    embedding_row: int
    norm: int
    head: int
    tied: bool
    cache_per_token: int
    windows: tuple[int | None, ...]
    item: int
    hidden_per_token: int
    chunk_per_token: int
    scores_per_pair: int
    max_context: int

    def cache(self, context: int) -> int:
        """Bytes of all KV caches for ``context`` tokens."""
        each = self.cache_per_token // len(self.layers)
        return sum(each * min(context, window or context) for window in self.windows)

    def working(self, context: int, chunk: int) -> int:
        """Bytes of activations: the whole prompt's hidden states, and what one layer makes of a chunk."""
        chunk = min(chunk, context)
        return 2 * context * self.hidden_per_token + chunk * (self.chunk_per_token + context * self.scores_per_pair)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a budget buys. Sizes are in bytes, times in seconds; ``seconds_per_token`` is None where no speed is known."""

    budget: int
    resident: bool
    context: int
    context_window: int | None
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
    total_bytes: int
    model_bytes: int
    streamed_bytes: int
    weight_bytes_per_token: int
    seconds_per_token: float | None = None
    bound_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        speed = self.seconds_per_token
        return asdict(self) | {
            "layers": len(self.pinned) + len(self.streamed),
            "bytes_per_token": self.streamed_bytes,
            "tokens_per_second": None if not speed else 1 / speed,
        }


class _Common(TypedDict):
    budget: int
    context_window: int | None
    slots: int
    speeds: Speeds | None


def needs_of(checkpoint: Checkpoint, *, item: int, window: int | None, fused_attention: bool) -> Needs:
    """What a checkpoint needs.

    Args:
        checkpoint: the model.
        item: bytes of an activation and of a number in the KV cache.
        window: the tokens that attention is limited to by setting.
        fused_attention: whether attention runs without the matrix of scores (H, L, S) in memory.
    """
    config = checkpoint.config
    windows: list[int | None] = []
    for index in range(config.num_hidden_layers):
        own = config.sliding_window if index in config.sliding_layers else None
        windows.append(min(filter(None, (own, window)), default=None))
    each = cache_bytes(heads=config.num_key_value_heads, head_dim=config.head_dim, tokens=1, item_bytes=item)
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    table = checkpoint.embed_tokens
    return Needs(
        layers=tuple(_slot_bytes(layer.layout.nbytes) for layer in checkpoint.layers),
        embedding=_slot_bytes(table.layout.nbytes),
        embedding_row=table.nbytes // config.vocab_size,
        norm=_slot_bytes(checkpoint.norm.layout.nbytes),
        head=_slot_bytes(checkpoint.lm_head.layout.nbytes) if checkpoint.lm_head else 0,
        tied=checkpoint.lm_head is None,
        cache_per_token=each * config.num_hidden_layers,
        windows=tuple(windows),
        item=item,
        hidden_per_token=config.hidden_size * item,
        chunk_per_token=item * (3 * config.hidden_size + 2 * heads * config.head_dim + 4 * config.intermediate_size),
        scores_per_pair=0 if fused_attention else 2 * item * config.num_attention_heads,
        max_context=config.max_position_embeddings,
    )


def automatic_budget(memory: Memory) -> int:
    """The budget where none was given: what is free, less a reserve for the system, and at most what the GPU may use."""
    reserve = max(MINIMUM_RESERVE, memory.total // 10)
    free = max(memory.available - reserve, memory.available // 2)
    return min(free, memory.gpu_limit) if memory.gpu_limit else free


def make_plan(
    needs: Needs,
    *,
    budget: int,
    slots: int,
    context: int | None = None,
    context_window: int | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
    speeds: Speeds | None = None,
) -> Plan:
    """Decide what is resident, pinned and streamed inside ``budget`` bytes.

    Args:
        needs: of the model.
        budget: bytes for weights, KV cache and activations together; the interpreter and its libraries come on top.
        slots: that the ring has where layers are streamed.
        context: tokens that the KV cache must have room for; None: what a quarter of the budget holds.
        context_window: tokens that attention looks back over, for the record.
        prefill_chunk: the most prompt tokens that go through a layer at once; less where the budget is small.
        speeds: for the prediction.

    Raises:
        MemoryBudgetError: not even the smallest layout fits; the hint says the smallest budget that would do.
    """
    common = _Common(budget=budget, context_window=context_window, slots=slots, speeds=speeds)
    every = needs.embedding + needs.norm + needs.head + sum(needs.layers)
    resident_room = budget - every
    tokens = context or _context_for(needs, budget, resident_room)
    chunk = _chunk_for(needs, budget, tokens, prefill_chunk)
    extra = needs.cache(tokens) + needs.working(tokens, chunk)
    if every + extra <= budget:
        return _priced(needs, pinned=tuple(range(len(needs.layers))), context=tokens, prefill_chunk=chunk, **common)
    outer = needs.norm + (needs.embedding if needs.tied else needs.head)
    slot = max(needs.layers)
    ring = min(slots, len(needs.layers)) * slot
    smallest_tokens = context or min(MINIMUM_CONTEXT, needs.max_context)
    if context is None:
        tokens = _context_for(needs, budget, budget - outer - ring)
        chunk = _chunk_for(needs, budget, tokens, prefill_chunk)
    room = budget - outer - ring - needs.cache(tokens) - needs.working(tokens, chunk)
    while room < 0 and chunk > MINIMUM_CHUNK:
        chunk = max(MINIMUM_CHUNK, chunk // 2)
        room = budget - outer - ring - needs.cache(tokens) - needs.working(tokens, chunk)
    if room < 0:
        least = outer + ring + needs.cache(smallest_tokens) + needs.working(smallest_tokens, MINIMUM_CHUNK)
        raise MemoryBudgetError(
            f"the budget is {megabytes(budget)}, and the least that this model runs in is {megabytes(least)}: "
            f"{megabytes(outer)} for norm and head, {megabytes(ring)} for {min(slots, len(needs.layers))} layers in transit, "
            f"{megabytes(least - outer - ring)} for {smallest_tokens} tokens of context",
            hint=f"use --memory {megabytes(least).replace(' ', '')} or more, a shorter --context, or convert with fewer --bits",
        )
    return _priced(needs, pinned=_pinned(needs, room), context=tokens, prefill_chunk=chunk, **common)


def megabytes(nbytes: int) -> str:
    """``1234 MB``, rounded up."""
    return f"{-(-nbytes // 1_000_000)} MB"


def spread(count: int, total: int) -> tuple[int, ...]:
    """``count`` of the numbers below ``total``, as evenly as they can lie."""
    return tuple((2 * number + 1) * total // (2 * count) for number in range(count))


def _slot_bytes(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE + PAGE


def _context_for(needs: Needs, budget: int, room: int) -> int:
    """Tokens that a quarter of the budget holds, at most the model's own and, where weights leave less room, what is there."""
    share = min(int(budget * CONTEXT_SHARE), max(room, 0))
    low, high = min(MINIMUM_CONTEXT, needs.max_context), needs.max_context
    while low < high:
        middle = (low + high + 1) // 2
        if needs.cache(middle) + needs.working(middle, MINIMUM_CHUNK) <= share:
            low = middle
        else:
            high = middle - 1
    return low


def _chunk_for(needs: Needs, budget: int, context: int, most: int) -> int:
    chunk = min(most, max(context, 1))
    per_token = needs.chunk_per_token + context * needs.scores_per_pair
    while chunk > MINIMUM_CHUNK and chunk * per_token > budget * CHUNK_SHARE:
        chunk = max(MINIMUM_CHUNK, chunk // 2)
    return chunk


def _pinned(needs: Needs, room: int) -> tuple[int, ...]:
    """As many layers as fit, spread evenly; at least one streams, or the model would be resident."""
    for count in range(len(needs.layers) - 1, 0, -1):
        chosen = spread(count, len(needs.layers))
        if sum(needs.layers[index] for index in chosen) <= room:
            return chosen
    return ()


def _priced(
    needs: Needs,
    *,
    pinned: tuple[int, ...],
    context: int,
    prefill_chunk: int,
    budget: int,
    context_window: int | None,
    slots: int,
    speeds: Speeds | None,
) -> Plan:
    streamed = tuple(index for index in range(len(needs.layers)) if index not in set(pinned))
    resident = not streamed
    slots = 0 if resident else min(slots, len(streamed))
    slot = max((needs.layers[index] for index in streamed), default=0)
    in_memory = resident or needs.tied
    outer = needs.norm + needs.head + (needs.embedding if in_memory else 0)
    pinned_bytes = sum(needs.layers[index] for index in pinned)
    streamed_bytes = sum(needs.layers[index] for index in streamed)
    row = 0 if in_memory else needs.embedding_row
    caches, working = needs.cache(context), needs.working(context, prefill_chunk)
    weights = sum(needs.layers) + needs.norm + (needs.embedding if needs.tied else needs.head)
    seconds, bound = None, None
    if speeds is not None:
        reading, computing = (streamed_bytes + row) / speeds.disk, weights / speeds.weights
        seconds, bound = max((reading, "disk"), (computing, "arithmetic"))
    return Plan(
        budget=budget,
        resident=resident,
        context=context,
        context_window=context_window,
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
        total_bytes=pinned_bytes + slots * slot + outer + caches + working,
        model_bytes=needs.embedding + needs.norm + needs.head + sum(needs.layers),
        streamed_bytes=streamed_bytes + row,
        weight_bytes_per_token=weights,
        seconds_per_token=seconds,
        bound_by=bound,
    )
