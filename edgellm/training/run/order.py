"""The items of a step, which follow from the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

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
    draws = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = draws.permutation(len(items))
    return [items[index] for index in order[place * batch : (place + 1) * batch]]
