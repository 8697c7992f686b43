"""A block of keys enters a softmax that is taken along the way.

Online softmax: Milakov and Gimelshein 2018, arXiv:1805.02867. With the largest score m and the sum
z of e^(score - m) so far, a block of keys whose largest score makes m' of m multiplies z and the
mixed values by e^(m - m') and adds its own.

Scores have keys in the lanes, so keys are turned first, and mixed values have features in them. The
sums of a query take features, and then keys, in their order; a key that it may not see adds exactly
nothing. So they depend on no other query.
"""

# D head size; a row is one query

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgellm.kernels.attention.key_columns import (
    KEY_VECTORS,
    KeyColumns,
    feature_pieces,
)
from edgellm.kernels.attention.kv_storage import HeadRows, KeyRange
from edgellm.kernels.codegen.abi import KEY_BLOCK
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.values import F32, I32, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES

LOWEST = -1e30
"""Where the largest score begins."""

_MASKED = -3e38
"""The score of a key that a query may not see."""

_UNMASKED = -1e38
"""Below the score of any key that a query may see."""


class RowState(NamedTuple):
    """Addresses of what is known of each of up to QUERY_ROWS rows."""

    queries: Value  # (rows, D) float32, scaled
    results: Value  # (rows, D) float32: the mixed values so far
    scores: Value  # (rows, KEY_BLOCK) float32: scores, then weights, of the block
    totals: Value  # (rows, lanes) float32: sums of e^(score - largest), lane by lane
    largest: Value  # (rows,) float32: the largest scores so far
    fades: Value  # (rows,) float32: what the block multiplies earlier results by
    begins: Value  # (rows,) 32-bit: the first key that a row sees
    ends: Value  # (rows,) 32-bit: the one after the last


class KeyBlocks:
    """The sums of rows over blocks of keys.

    Args:
        e: the kernel.
        head_dim: D.
        state: the rows.
        columns: where keys are turned, a strip at a time.
    """

    def __init__(self, e: Emitter, *, head_dim: int, state: RowState, columns: KeyColumns) -> None:
        self.e = e
        self.head_dim = head_dim
        self.state = state
        self.columns = columns
        self.lanes: int = e.isa.lanes
        self.floats: Value = vector(F32, e.isa.lanes)
        self.strip: int = columns.strip
        # half of the registers hold sums: of 8 rows by 2 vectors, or of fewer rows by more
        self.sums: int = e.isa.registers // 2
        largest_tile = self.sums // KEY_VECTORS
        self.row_tiles: list[int] = [largest_tile >> i for i in range(largest_tile.bit_length())]

    def add(self, keys: HeadRows, values: HeadRows, part: KeyRange, rows: Value) -> None:
        """Take in the keys of a part, which lie in one block."""
        e = self.e
        block = e.round_down(part.begin, KEY_BLOCK)
        self.score_keys(keys, block, part, rows)

        def weigh(row: Value) -> None:
            self.weigh_keys(block, part, row)

        e.loop(0, rows, weigh)
        self.mix_values(values, part, rows)

    # --- scores

    def score_keys(self, keys: HeadRows, block: Value, part: KeyRange, rows: Value) -> None:
        """Write each row's scores of a part's keys."""
        e = self.e

        def one_strip(first: Value) -> None:
            self.columns.turn(keys, first, part)
            offset = e.mul(e.sub(first, block), 4)
            self.in_tiles(rows, lambda row, tile: self.score_strip(row, tile, offset))

        e.loop(e.round_down(part.begin, self.strip), part.end, one_strip, step=self.strip)

    def score_strip(self, row: Value, tile: int, offset: Value) -> None:
        """Write some rows' scores of a strip of keys."""
        e = self.e
        parts = [(i, part) for i in range(tile) for part in range(KEY_VECTORS)]
        queries = [self.row_of(self.state.queries, row, i, 4 * self.head_dim) for i in range(tile)]
        unrolled = next(step for step in (4, 2, 1) if self.head_dim % step == 0)

        def add_features(first: Value, *sums: Value) -> Sequence[Value]:
            columns = e.at(self.columns.address, e.mul(first, 4 * self.strip))
            here = [e.at(query, e.mul(first, 4)) for query in queries]
            for i in range(unrolled):
                keys = [
                    e.load(columns, 4 * (i * self.strip + part * self.lanes), self.floats)
                    for part in range(KEY_VECTORS)
                ]
                numbers = [self.load_number(query, 4 * i) for query in here]
                sums = tuple(
                    e.fma(keys[part], numbers[place], total)
                    for (place, part), total in zip(parts, sums, strict=True)
                )
            return sums

        zeros = [e.const(self.floats, 0.0)] * len(parts)
        scores = e.loop(0, self.head_dim, add_features, zeros, step=unrolled)
        for (i, part), score in zip(parts, scores, strict=True):
            target = self.row_of(self.state.scores, row, i, 4 * KEY_BLOCK)
            e.store(score, target, e.add(offset, 4 * self.lanes * part))

    # --- weights

    def weigh_keys(self, block: Value, part: KeyRange, row: Value) -> None:
        """Replace a row's scores by weights, e^(score - largest); note how earlier ones fade."""
        e, lanes, state = self.e, self.lanes, self.state
        scores = self.row_of(state.scores, row, 0, 4 * KEY_BLOCK)
        begin, end = (
            e.broadcast(e.load(bounds, e.mul(row, 4), I32, align=4), lanes)
            for bounds in (state.begins, state.ends)
        )
        numbers = e.const_lanes(I32, range(lanes))
        first = e.round_down(part.begin, lanes)

        def mask(position: Value, so_far: Value) -> Sequence[Value]:
            offset = e.mul(e.sub(position, block), 4)
            places = e.b.add(e.broadcast(e.b.trunc(position, I32), lanes), numbers)
            is_visible = e.b.and_(
                e.b.icmp_signed("<=", begin, places), e.b.icmp_signed("<", places, end)
            )
            score = e.load(scores, offset, self.floats)
            masked = e.b.select(is_visible, score, e.const(self.floats, _MASKED))
            e.store(masked, scores, offset)
            return [e.binary("maxnum", so_far, masked)]

        [highest] = e.loop(first, part.end, mask, [e.const(self.floats, _MASKED)], step=lanes)
        one_float = vector(F32, 1)
        before = e.load(state.largest, e.mul(row, 4), one_float)
        largest = e.binary("maxnum", before, e.broadcast(e.reduce_max(highest), 1))
        fade = exp(e, e.b.fsub(before, largest))  # e^(m - m')
        e.store(largest, state.largest, e.mul(row, 4))
        e.store(fade, state.fades, e.mul(row, 4))
        largest, fade = (e.shuffle(one, [0] * lanes) for one in (largest, fade))

        def weigh(position: Value, total: Value) -> Sequence[Value]:
            offset = e.mul(e.sub(position, block), 4)
            score = e.load(scores, offset, self.floats)
            is_visible = e.b.fcmp_ordered(">", score, e.const(self.floats, _UNMASKED))
            weight = exp(e, e.b.fsub(score, largest))
            weight = e.b.select(is_visible, weight, e.const(self.floats, 0.0))
            e.store(weight, scores, offset)
            return [e.b.fadd(total, weight)]

        total = e.load(state.totals, e.mul(row, 4 * lanes), self.floats)
        [total] = e.loop(first, part.end, weigh, [e.b.fmul(total, fade)], step=lanes)
        e.store(total, state.totals, e.mul(row, 4 * lanes))

    # --- values

    def mix_values(self, values: HeadRows, part: KeyRange, rows: Value) -> None:
        """Fade the results, and add the part's values times their weights."""
        pieces = feature_pieces(self.head_dim, self.lanes)

        def some_rows(row: Value, tile: int) -> None:
            width = min(8, self.sums // tile)
            for start in range(0, len(pieces), width):
                some = pieces[start : start + width]
                self.mix_pieces(values, part, row, tile, some)

        self.in_tiles(rows, some_rows)

    def mix_pieces(
        self,
        values: HeadRows,
        part: KeyRange,
        row: Value,
        tile: int,
        pieces: Sequence[tuple[int, int]],
    ) -> None:
        """Do so for some rows and some features: (first, how many) of each vector of them."""
        e, state = self.e, self.state
        block = e.round_down(part.begin, KEY_BLOCK)
        item_bytes = ITEM_BYTES[values.kind]
        results = [self.row_of(state.results, row, i, 4 * self.head_dim) for i in range(tile)]
        weights = [self.row_of(state.scores, row, i, 4 * KEY_BLOCK) for i in range(tile)]
        fades = [self.load_number(state.fades, e.mul(e.add(row, i), 4)) for i in range(tile)]
        places = [(i, piece) for i in range(tile) for piece in range(len(pieces))]
        sums = []
        for i, piece in places:
            first, lanes = pieces[piece]
            so_far = e.load(results[i], 4 * first, vector(F32, lanes))
            sums.append(e.b.fmul(so_far, e.part(fades[i], 0, lanes)))

        def add_key(position: Value, *sums: Value) -> Sequence[Value]:
            value = e.at(values.address, e.mul(position, values.row_bytes))
            begin = item_bytes * pieces[0][0]
            nbytes = item_bytes * sum(lanes for _, lanes in pieces)
            e.prefetch(value, begin, nbytes, ahead=KEY_BLOCK * values.row_bytes)
            offset = e.mul(e.sub(position, block), 4)
            shares = [self.load_number(weight, offset) for weight in weights]
            numbers = [
                load_floats(e, value, item_bytes * first, values.kind, lanes)
                for first, lanes in pieces
            ]
            return [
                e.fma(numbers[piece], e.part(shares[i], 0, pieces[piece][1]), total)
                for (i, piece), total in zip(places, sums, strict=True)
            ]

        mixed = e.loop(part.begin, part.end, add_key, sums)
        for (i, piece), result in zip(places, mixed, strict=True):
            e.store(result, results[i], 4 * pieces[piece][0])

    # --- rows

    def row_of(self, table: Value, row: Value, place: int, row_bytes: int) -> Value:
        """Return the address of a row of a table, ``place`` rows after ``row``."""
        e = self.e
        return e.at(table, e.mul(e.add(row, place), row_bytes))

    def load_number(self, base: Value, offset: int | Value) -> Value:
        """Read one float32 into all lanes."""
        return self.e.broadcast(self.e.load(base, offset, F32, align=4), self.lanes)

    def in_tiles(self, rows: Value, body: Callable[[Value, int], None]) -> None:
        """Do ``body(row, tile)`` for rows in tiles, each as large as it can be."""
        e = self.e
        begin: int | Value = 0
        for tile in self.row_tiles:
            end = e.add(begin, e.round_down(e.sub(rows, begin), tile))

            def one_tile(row: Value, tile: int = tile) -> None:
                body(row, tile)

            e.loop(begin, end, one_tile, step=tile)
            begin = end
