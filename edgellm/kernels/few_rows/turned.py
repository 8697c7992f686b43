"""Sixteen rows of a few lanes, turned to columns of sixteen lanes."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import TILE
from edgellm.kernels.codegen.values import Value, ValueBuilder

_QUAD = 4
"""Lanes in 128 bits, within which most steps stay."""


def columns_of(e: ValueBuilder, rows: Sequence[Value]) -> list[Value]:
    """Return the columns of 16 rows of 4 or 8 lanes of 32 bits."""
    lanes = rows[0].type.count
    per_vector = TILE // lanes
    sets = []
    for first in range(0, TILE, _QUAD * per_vector):
        # vector i has rows first + i, first + 4 + i, ...
        vectors = [
            e.concat([rows[first + i + _QUAD * number] for number in range(per_vector)])
            for i in range(_QUAD)
        ]
        sets.append(_turned_quads(e, vectors))
    if lanes == _QUAD:
        return sets[0]
    low, high = sets
    # a vector has a row's lanes 0 to 3 beside its lanes 4 to 7
    orders = [
        [2 * quad + half + lane for quad in range(0, TILE, _QUAD) for lane in range(_QUAD)]
        for half in (0, _QUAD)
    ]
    return [e.shuffle(x, order, y) for order in orders for x, y in zip(low, high, strict=True)]


def _turned_quads(e: ValueBuilder, vectors: Sequence[Value]) -> list[Value]:
    """Turn four vectors: of each four lanes the first ones of all, then the second ones, ..."""

    def mixed(x: Value, y: Value, lanes: Sequence[int]) -> Value:
        """Return some lanes of each quad: those of x are 0 to 3, of y 4 to 7."""
        order = [
            quad + lane % _QUAD + TILE * (lane // _QUAD)
            for quad in range(0, TILE, _QUAD)
            for lane in lanes
        ]
        return e.shuffle(x, order, y)

    a, b, c, d = vectors
    turned = []
    for lanes in ((0, 4, 1, 5), (2, 6, 3, 7)):
        left, right = mixed(a, b, lanes), mixed(c, d, lanes)
        turned += [mixed(left, right, (0, 1, 4, 5)), mixed(left, right, (2, 3, 6, 7))]
    return turned
