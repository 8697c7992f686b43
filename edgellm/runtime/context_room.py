"""How many tokens of context the memory of a loaded model has room for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from edgellm.memory_plan.plan import Plan, caches_of
from edgellm.runtime.caches import CacheMaker, LayerCaches
from edgellm.runtime.loader import caches_bytes
from edgellm.settings import KV_PLAIN_BITS

FEWER_BITS = 8
"""Of the KV cache, where the numbers are plain."""


@dataclass(frozen=True, slots=True)
class ContextRoom:
    """Tokens of context.

    Attributes:
        of_model: the model's own limit.
        in_memory: that the memory set aside for KV caches, and what the budget leaves, would hold.
        in_fewer_bits: that it would hold in ``FEWER_BITS``; None where they are quantized already.
    """

    of_model: int
    in_memory: int
    in_fewer_bits: int | None


def context_room(caches: CacheMaker, plan: Plan, *, of_model: int) -> ContextRoom:
    """Return the context that there could be.

    Args:
        caches: the KV caches of the loaded model.
        plan: the plan that it was loaded with.
        of_model: the model's own limit.
    """
    budget = plan.kv_budget // caches_of(plan.beams)

    def most(nbytes: Callable[[int], int]) -> int:
        return bisect_right(range(1, of_model + 1), budget, key=nbytes)

    in_fewer_bits = None
    if isinstance(caches, LayerCaches) and (plan.kv_bits or KV_PLAIN_BITS) >= KV_PLAIN_BITS:
        checkpoint = caches.checkpoint
        in_fewer_bits = most(
            lambda tokens: caches_bytes(
                checkpoint, capacity=tokens, window=plan.context_window, kv_bits=FEWER_BITS
            )
        )
    return ContextRoom(of_model, most(lambda tokens: caches.nbytes(capacity=tokens)), in_fewer_bits)
