"""The caches of a sequence, made as a loaded model and its plan want them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.kv_cache.cache import Cache
from edgellm.memory_plan.plan import Plan
from edgellm.runtime.loader import caches_bytes, make_caches


class CacheMaker(Protocol):
    """Makes the caches of sequences.

    Of the arguments, ``capacity`` are tokens that the caches hold at most, ``reserve`` those
    that storage is made for at once, and ``context`` those that a sequence might have where this
    one has less; None: ``capacity``.
    """

    def make(self, *, capacity: int, reserve: int, context: int | None = None) -> list[Cache]:
        """Return empty caches."""
        ...

    def nbytes(self, *, capacity: int, context: int | None = None) -> int:
        """Return the bytes that these take when they are full."""
        ...


@dataclass(frozen=True, slots=True)
class LayerCaches:
    """Makes one cache per layer, for a model's own layers.

    Attributes:
        checkpoint: the model.
        plan: the plan that it was loaded with.
    """

    checkpoint: Checkpoint
    plan: Plan

    def make(self, *, capacity: int, reserve: int, context: int | None = None) -> list[Cache]:
        """Return empty caches, one per layer."""
        return make_caches(
            self.checkpoint,
            capacity=capacity,
            window=self.plan.context_window,
            reserve=reserve,
            kv_bits=self.plan.kv_bits,
            context=context,
        )

    def nbytes(self, *, capacity: int, context: int | None = None) -> int:
        """Return the bytes that these take when they are full."""
        return caches_bytes(
            self.checkpoint,
            capacity=capacity,
            window=self.plan.context_window,
            kv_bits=self.plan.kv_bits,
            context=context,
        )
