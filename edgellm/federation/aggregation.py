"""The mean of clients' changes: of the products ``B A``, not of the factors apart.

A mean of the A's times a mean of the B's holds products of different clients, which nobody learned.
The mean of the products has the factors of all clients side by side; its nearest matrix of the
adapter's rank comes from the singular values of these (``low_rank``), so O x I is never made.
"""

# I in, O out, R rank

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.converters.tensors.floats import Floats
from edgellm.federation.factors import DOWN, UP, Numbers
from edgellm.low_rank.svd import spectrum_of_product, truncated_product


@dataclass(frozen=True, slots=True)
class Contribution:
    """A client's part of a mean.

    Attributes:
        weight: in the mean, above 0.
        numbers: its factors.
    """

    weight: float
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of clients' changes.

    Attributes:
        numbers: its factors.
        lost: the norm of what the rank has no room for, over that of the mean.
        lost_of_round: the same, over that of what the round changed.
    """

    numbers: Numbers
    lost: float
    lost_of_round: float


def mean_of_products(
    parts: Sequence[Contribution], before: Numbers, spare: Sequence[dict[str, Floats]]
) -> Mean:
    """Return the weighted mean of products, with factors of the rank that they had.

    Args:
        parts: of one client at least; all have the shapes of ``before``.
        before: what all of them began the round with.
        spare: factors whose A takes the place of directions that the mean does not need; their B
            is zero, so that they change nothing and can be learned.
    """
    whole = sum(part.weight for part in parts)
    shares = [part.weight / whole for part in parts]
    numbers: Numbers = [{} for _ in before]
    energy = of_round = left_out = 0.0
    for layer, target in _matrices(before):
        down_name, up_name = f"{target}.{DOWN}", f"{target}.{UP}"
        old_down, old_up = before[layer][down_name], before[layer][up_name]
        downs = [part.numbers[layer][down_name] for part in parts]
        ups = [
            part.numbers[layer][up_name] * np.float32(share)
            for part, share in zip(parts, shares, strict=True)
        ]
        up, down = np.concatenate(ups, axis=1), np.concatenate(downs, axis=0)
        found = truncated_product(up, down, len(old_down))
        energy += found.energy
        left_out += max(0.0, found.energy - found.kept)
        of_round += spectrum_of_product(
            np.concatenate([up, -old_up], axis=1), np.concatenate([down, old_down], axis=0)
        ).energy
        numbers[layer][down_name] = np.concatenate(
            [found.down, spare[layer][down_name][found.rank :]]
        )
        numbers[layer][up_name] = np.pad(found.up, ((0, 0), (0, len(old_down) - found.rank)))
    return Mean(numbers, _share(left_out, energy), _share(left_out, of_round))


def mean_of_ups(parts: Sequence[Contribution], before: Numbers) -> Mean:
    """Return the mean where all clients have the same A: that of the B's, and nothing is lost.

    Args:
        parts: of one client at least, whose numbers are the B's alone.
        before: what all of them began the round with.
    """
    whole = sum(part.weight for part in parts)
    numbers: Numbers = [dict(own) for own in before]
    for layer, target in _matrices(before):
        name = f"{target}.{UP}"
        total = np.zeros(before[layer][name].shape)
        for part in parts:
            total += part.weight / whole * part.numbers[layer][name].astype(np.float64)
        numbers[layer][name] = total.astype(np.float32)
    return Mean(numbers, 0.0, 0.0)


def _matrices(numbers: Numbers) -> Iterator[tuple[int, str]]:
    """Yield layer and name of each changed matrix."""
    for layer, own in enumerate(numbers):
        for name in own:
            target, _, factor = name.rpartition(".")
            if factor == UP:
                yield layer, target


def _share(part: float, whole: float) -> float:
    return math.sqrt(part / whole) if whole else 0.0
