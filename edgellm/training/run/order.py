"""The items of a step, which follow from the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from edgellm.training.micro_batch import Ints

Item = TypeVar("Item")


def step_items(items: Sequence[Item], step: int, *, batch: int, seed: int) -> list[Item]:
    """Return what a step learns: each epoch takes every item once, in an order of its own.

    Args:
        items: of the data.
        step: from 0.
        batch: items of a step; the last one of an epoch may have fewer.
        seed: of the orders.
    """
    per_epoch = -(-len(items) // batch)
    epoch, place = divmod(step, per_epoch)
    order = _order(len(items), epoch, seed)
    return [items[index] for index in order[place * batch : (place + 1) * batch]]


@lru_cache(maxsize=1)
def _order(count: int, epoch: int, seed: int) -> Ints:
    """Return places of items as an epoch has them: drawn once, and not at each of its steps."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
