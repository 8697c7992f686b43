"""A block of keys enters a softmax that is taken along the way.

Online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867. With the largest score m and the sum
z of e^(score - m) so far, a block of keys whose largest score makes m' of m multiplies z and the
mixed values by e^(m - m') and adds its own.

Keys are taken in their order, and one that a query may not see adds exactly nothing.
"""

# D head size; the lanes of a vector are queries

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.values import F32, I32, Value, vector

_TILE = 8
"""Keys, or features, that are summed side by side: each needs a register."""

LOWEST = -1e30
"""Where the largest score begins."""

_MASKED = -3e38
"""The score of a key that a query may not see."""

_UNMASKED = -1e38
"""Below the score of any key that a query may see."""


class KeyRange(NamedTuple):
    """Positions of keys, from the first to before the last; scalars, or one a lane."""

    begin: Value
    end: Value


class Softmax(NamedTuple):
    """The state that goes from block to block: (lanes,) largest scores, and sums of e^(s - m)."""

    largest: Value
    total: Value


class KeyBlocks:
    """The sums of a vector of queries over blocks of keys.

    Args:
        e: the kernel.
        head_dim: D.
        key_bytes: from one key or value to the next.
        queries: address of (D, lanes) float32, scaled.
        results: address of (D, lanes) float32, the mixed values so far.
        scores: address of (keys of a block, lanes) float32, working memory.
    """

    def __init__(
        self,
        e: Emitter,
        *,
        head_dim: Value,
        key_bytes: Value,
        queries: Value,
        results: Value,
        scores: Value,
    ) -> None:
        self.e = e
        self.lanes: int = e.isa.lanes
        self.vector_bytes: int = 4 * e.isa.lanes
        self.floats: Value = vector(F32, e.isa.lanes)
        self.zeros: Value = e.const(self.floats, 0.0)
        self.head_dim = head_dim
        self.key_bytes = key_bytes
        self.queries = queries
        self.results = results
        self.scores = scores

    def add(
        self, keys: Value, values: Value, part: KeyRange, visible: KeyRange, before: Softmax
    ) -> Sequence[Value]:
        """Take in the keys of a part; return the largest scores and the sums after it."""
        e = self.e
        count = e.sub(part.end, part.begin)
        largest = self.score_keys(keys, count, part, visible, before.largest)

        def weigh_key(key: Value, total: Value) -> Sequence[Value]:
            """Replace a score by its weight, e^(score - largest)."""
            score = e.load(self.scores, e.mul(key, self.vector_bytes), self.floats, align=4)
            is_visible = e.b.fcmp_ordered(">", score, e.const(self.floats, _UNMASKED))
            weight = e.b.select(is_visible, exp(e, e.b.fsub(score, largest)), self.zeros)
            e.store(weight, self.scores, e.mul(key, self.vector_bytes), align=4)
            return [e.b.fadd(total, weight)]

        # the sums so far, as they would be with the new largest score
        fade = exp(e, e.b.fsub(before.largest, largest))  # e^(m - m')
        [total] = e.loop(0, count, weigh_key, [e.b.fmul(before.total, fade)])
        self.mix_values(values, count, fade)
        return [largest, total]

    def score_keys(
        self, keys: Value, count: Value, part: KeyRange, visible: KeyRange, largest: Value
    ) -> Value:
        """Write the scores (count, lanes) of a part's keys; return the largest up to now."""
        e = self.e

        def score_tile(tile: int, first: Value, largest: Value) -> Sequence[Value]:
            # a sum (lanes,) for each key of the tile: the query's features are read once for all
            rows = [e.at(keys, e.mul(e.add(first, i), self.key_bytes)) for i in range(tile)]

            def add_feature(feature: Value, *scores: Value) -> Sequence[Value]:
                offset = e.mul(feature, self.vector_bytes)
                query = e.load(self.queries, offset, self.floats, align=4)
                numbers = [self.load_number(row, e.mul(feature, 4)) for row in rows]
                return [
                    e.fma(number, query, score)
                    for number, score in zip(numbers, scores, strict=True)
                ]

            # q . k for each lane
            scores = e.loop(0, self.head_dim, add_feature, [self.zeros] * tile)
            for i, score in enumerate(scores):
                position = e.b.trunc(e.add(part.begin, e.add(first, i)), I32)
                position = e.broadcast(position, self.lanes)
                is_visible = e.b.and_(
                    e.b.icmp_signed("<=", visible.begin, position),
                    e.b.icmp_signed("<", position, visible.end),
                )
                masked = e.b.select(is_visible, score, e.const(self.floats, _MASKED))
                offset = e.mul(e.add(first, i), self.vector_bytes)
                e.store(masked, self.scores, offset, align=4)
                largest = e.binary("maxnum", largest, masked)
            return [largest]

        [largest] = self.tiled(count, score_tile, [largest])
        return largest

    def mix_values(self, values: Value, count: Value, fade: Value) -> None:
        """Fade the results (D, lanes), and add the part's values times their weights."""
        e = self.e

        def mix_tile(tile: int, first: Value) -> None:
            # a sum (lanes,) for each feature of the tile: the weights are read once for all
            offsets = [e.mul(e.add(first, i), self.vector_bytes) for i in range(tile)]
            faded = [
                e.b.fmul(e.load(self.results, offset, self.floats, align=4), fade)
                for offset in offsets
            ]

            def add_key(key: Value, *sums: Value) -> Sequence[Value]:
                offset = e.mul(key, self.vector_bytes)
                weight = e.load(self.scores, offset, self.floats, align=4)
                row = e.at(values, e.add(e.mul(key, self.key_bytes), e.mul(first, 4)))
                numbers = [self.load_number(row, 4 * i) for i in range(tile)]
                return [
                    e.fma(number, weight, total)
                    for number, total in zip(numbers, sums, strict=True)
                ]

            mixed = e.loop(0, count, add_key, faded)
            for offset, result in zip(offsets, mixed, strict=True):
                e.store(result, self.results, offset, align=4)

        self.tiled(self.head_dim, mix_tile, [])

    def load_number(self, base: Value, offset: int | Value) -> Value:
        """Read one float32 into all lanes."""
        return self.e.broadcast(self.e.load(base, offset, F32, align=4), self.lanes)

    def tiled(
        self, count: Value, body: Callable[..., Sequence[Value] | None], carried: Sequence[Value]
    ) -> list[Value]:
        """Do ``body(tile, first, ...)`` for ``count`` places in tiles, the remainder one by one."""
        e = self.e
        tiles_end = e.round_down(count, _TILE)

        def one_tile(first: Value, *sums: Value) -> Sequence[Value] | None:
            return body(_TILE, first, *sums)

        def one_place(place: Value, *sums: Value) -> Sequence[Value] | None:
            return body(1, place, *sums)

        carried = e.loop(0, tiles_end, one_tile, carried, step=_TILE)
        return e.loop(tiles_end, count, one_place, carried)
