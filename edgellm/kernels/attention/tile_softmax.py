"""Rows take in a block of keys: two products of tiles, and the softmax between them.

Each is done for some hundred rows before the next begins: to go from tiles to vectors and back
costs the processor about half a microsecond, and what was just stored cannot be loaded as a tile at
once.
"""

# D head size; a row is one query

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgellm.kernels.attention.tile_blocks import TILE_BYTES
from edgellm.kernels.codegen.abi import (
    KEY_BLOCK,
    PHASE_TILES,
    TILE,
    TILE_NUMBERS,
    TILE_ROWS,
    TILE_SCORE_BYTES,
)
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import ROUNDER
from edgellm.kernels.codegen.values import BFLOAT, F32, I8, I32, Value, vector
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES, tile

LOG2_E = math.log2(math.e)

_TERMS = (1.0, 0.69328293, 0.24221096, 0.05500893)
"""2^f is the sum of f^n times these, for |f| <= 1/2 to 1.1e-4: bfloat16 rounds to 2e-3.

2^0 is exactly 1: where the largest score stays, nothing fades.
"""

_LOWEST = -127.0
"""2^x is 0 from here on."""

_MASKED = -3e38
"""The score of a key that a query may not see."""

_LANES = 16
_WEIGHT_BYTES = 2 * KEY_BLOCK


class TileRows(NamedTuple):
    """Addresses of what is known of a thread's rows; the last three of a few tiles of them only."""

    queries: Value  # (rows, D) bfloat16, scaled
    results: Value  # (rows, D) float32: the mixed values so far
    totals: Value  # (rows, 16) float32: sums of the weights, lane by lane
    largest: Value  # (rows,) float32: the largest scores so far
    begins: Value  # (rows,) 32-bit: the first key that a row sees
    ends: Value  # (rows,) 32-bit: the one after the last
    scores: Value  # (PHASE_TILES, TILE_ROWS, row of TILE_SCORE_BYTES) float32
    weights: Value  # (PHASE_TILES, TILE_ROWS, KEY_BLOCK) bfloat16
    highest: Value  # (TILE_ROWS,) float32: the block's largest scores, then what fades


class _Tile(NamedTuple):
    """32 rows: the first, where their scores and weights are, and which of the block they see."""

    row: Value
    scores: Value
    weights: Value
    begin: Value  # the first place in the block, of the tile that it is in
    stop: Value  # the place after the last
    is_whole: Value  # whether every row sees all of the block


class TileSoftmax:
    """The sums of 32 rows over blocks of keys, whose tiles are those of ``TileBlocks``.

    Args:
        e: the kernel.
        head_dim: D, a multiple of 32.
        rows: of the thread.
        keys: address of the tiles of a block's keys.
        values: of the tiles of its values.
    """

    def __init__(
        self, e: Emitter, head_dim: int, rows: TileRows, *, keys: Value, values: Value
    ) -> None:
        self.e = e
        self.head_dim = head_dim
        self.rows = rows
        self.keys = keys
        self.values = values
        self.floats: Value = vector(F32, _LANES)

    def add(self, rows: Value, block: Value) -> None:
        """Take in a block of keys; the last tile of ``rows`` rows may be partly filled."""
        e = self.e
        tiles = e.ceil_div(rows, TILE_ROWS)

        # later rows see later keys: those that see any of the block follow each other
        def count(number: Value, blind: Value, seeing: Value) -> Sequence[Value]:
            lowest, highest = self.bounds(number, rows)
            is_blind = e.less(highest, e.add(block, 1))
            is_early = e.less(lowest, e.add(block, KEY_BLOCK))
            return [e.add(blind, self.count_of(is_blind)), e.add(seeing, self.count_of(is_early))]

        first, end = e.loop(0, tiles, count, [e.index(0), e.index(0)])

        def some_tiles(begin: Value) -> None:
            stop = e.min(e.add(begin, PHASE_TILES), end)

            def each(work: Callable[[_Tile], None]) -> None:
                e.loop(begin, stop, lambda number: work(self.tile(number, begin, rows, block)))

            each(self.score)
            each(lambda tile: self.weigh_tile(tile, block))
            each(self.mix)

        e.loop(first, end, some_tiles, step=PHASE_TILES)

    def weigh_tile(self, of: _Tile, block: Value) -> None:
        """Weigh the scores of a tile; what all rows see whole needs no masks."""
        e = self.e
        e.when(of.is_whole, lambda: self.weigh(of, block, masked=False))
        e.when(e.b.not_(of.is_whole), lambda: self.weigh(of, block, masked=True))

    def count_of(self, condition: Value) -> Value:
        """Return 1 where it holds, else 0."""
        return self.e.b.zext(condition, self.e.index(0).type)

    def bounds(self, number: Value, rows: Value) -> tuple[Value, Value]:
        """Return the first key that a row of a tile sees, and the one after the last."""
        e = self.e
        row = e.mul(number, TILE_ROWS)
        last = e.min(e.add(row, TILE_ROWS - 1), e.sub(rows, 1))
        return self.bound("begins", row), self.bound("ends", last)

    def bound(self, name: str, row: Value) -> Value:
        """Return the first key that a row sees, or the one after the last."""
        e = self.e
        number = e.load(getattr(self.rows, name), e.mul(row, 4), I32, align=4)
        return e.b.zext(number, e.index(0).type)

    def tile(self, number: Value, first: Value, rows: Value, block: Value) -> _Tile:
        """Return what a tile of rows has to do with a block."""
        e = self.e
        lowest, highest = self.bounds(number, rows)
        row = e.mul(number, TILE_ROWS)
        last = e.min(e.add(row, TILE_ROWS - 1), e.sub(rows, 1))
        place = e.sub(number, first)
        return _Tile(
            row,
            e.at(self.rows.scores, e.mul(place, TILE_ROWS * TILE_SCORE_BYTES)),
            e.at(self.rows.weights, e.mul(place, TILE_ROWS * _WEIGHT_BYTES)),
            e.round_down(e.sub(e.max(lowest, block), block), TILE_NUMBERS),
            e.sub(e.min(e.add(block, KEY_BLOCK), highest), block),
            e.b.and_(
                e.less(self.bound("begins", last), e.add(block, 1)),
                e.less(e.add(block, KEY_BLOCK - 1), self.bound("ends", row)),
            ),
        )

    # --- products

    def score(self, of: _Tile) -> None:
        """Write the scores of a tile of rows."""
        e = self.e
        queries = e.at(self.rows.queries, e.mul(of.row, 2 * self.head_dim))
        query_bytes = e.index(2 * self.head_dim)

        def some_keys(place: Value) -> None:
            keys = e.at(self.keys, e.mul(place, 2 * self.head_dim))
            for number in range(4):
                tile(e, "tilezero", number)

            def features(first: Value) -> None:
                for part in range(2):
                    offset = e.add(TILE * part * 2 * self.head_dim, e.mul(first, 2))
                    tile(e, "tileloadd64", 4 + part, e.at(queries, offset), query_bytes)
                    offset = e.add(TILE * part * 2 * self.head_dim, e.mul(first, 32))
                    tile(e, "tileloadd64", 6 + part, e.at(keys, offset), e.index(TILE_ROW_BYTES))
                self.multiply()

            e.loop(0, self.head_dim, features, step=TILE_NUMBERS)
            for number in range(4):
                offset = TILE * TILE_SCORE_BYTES * (number // 2) + TILE_ROW_BYTES * (number % 2)
                target = e.at(of.scores, e.add(offset, e.mul(place, 4)))
                tile(e, "tilestored64", number, target, e.index(TILE_SCORE_BYTES))

        e.loop(of.begin, of.stop, some_keys, step=TILE_NUMBERS)

    def mix(self, of: _Tile) -> None:
        """Add to a tile's results the values of the same keys times their weights."""
        e = self.e
        result_bytes = 4 * self.head_dim
        results = e.at(self.rows.results, e.mul(of.row, result_bytes))

        def some_features(first: Value) -> None:
            targets = []
            for number in range(4):
                offset = TILE * result_bytes * (number // 2) + TILE_ROW_BYTES * (number % 2)
                targets.append(e.at(results, e.add(offset, e.mul(first, 4))))
                tile(e, "tileloadd64", number, targets[-1], e.index(result_bytes))
            values = e.at(self.values, e.mul(first, TILE_BYTES // TILE))

            def some_keys(place: Value) -> None:
                for part in range(2):
                    offset = e.add(TILE * _WEIGHT_BYTES * part, e.mul(place, 2))
                    source = e.at(of.weights, offset)
                    tile(e, "tileloadd64", 4 + part, source, e.index(_WEIGHT_BYTES))
                    offset = e.add(TILE_BYTES * part, e.mul(place, 2 * self.head_dim))
                    tile(e, "tileloadd64", 6 + part, e.at(values, offset), e.index(TILE_ROW_BYTES))
                self.multiply()

            e.loop(of.begin, of.stop, some_keys, step=TILE_NUMBERS)
            for number, target in enumerate(targets):
                tile(e, "tilestored64", number, target, e.index(result_bytes))

        e.loop(0, self.head_dim, some_features, step=TILE_NUMBERS)

    def multiply(self) -> None:
        """Add the products of tiles 4 and 5 with tiles 6 and 7 to tiles 0 to 3."""
        for number in range(4):
            left = self.e.const(I8, 4 + number // 2)
            tile(self.e, "tdpbf16ps", number, left, self.e.const(I8, 6 + number % 2))

    # --- softmax

    def weigh(self, of: _Tile, block: Value, *, masked: bool) -> None:
        """Write the weights of a tile's rows; let their earlier results fade."""
        e, rows = self.e, self.rows

        def scores_of(place: Value) -> list[Value]:
            source = e.at(of.scores, e.mul(place, TILE_SCORE_BYTES))
            scores = [
                e.load(source, 4 * start, self.floats) for start in range(0, KEY_BLOCK, _LANES)
            ]
            if masked:
                scores = self.mask(scores, e.add(of.row, place), block)
            return scores

        def find_highest(place: Value) -> None:
            scores = scores_of(place)
            while len(scores) > 1:
                scores = [
                    e.binary("maxnum", x, y) for x, y in zip(scores[::2], scores[1::2], strict=True)
                ]
            e.store(e.reduce_max(scores[0]), rows.highest, e.mul(place, 4), align=4)

        def note_fades(place: Value) -> None:
            offset = e.mul(e.add(of.row, place), 4)
            before = e.load(rows.largest, offset, self.floats)
            highest = e.load(rows.highest, e.mul(place, 4), self.floats)
            largest = e.binary("maxnum", before, highest)
            e.store(largest, rows.largest, offset)
            e.store(self.exp2(e.b.fsub(before, largest)), rows.highest, e.mul(place, 4))

        def write_weights(place: Value) -> None:
            row = e.add(of.row, place)
            fade = self.load_number(rows.highest, place)
            result = e.at(rows.results, e.mul(row, 4 * self.head_dim))
            for first in range(0, self.head_dim, _LANES):
                faded = e.b.fmul(e.load(result, 4 * first, self.floats), fade)
                e.store(faded, result, 4 * first)
            total = e.b.fmul(e.load(rows.totals, e.mul(row, 4 * _LANES), self.floats), fade)
            largest = self.load_number(rows.largest, row)
            weights = [self.exp2(e.b.fsub(score, largest)) for score in scores_of(place)]
            target = e.at(of.weights, e.mul(place, _WEIGHT_BYTES))
            bfloats = vector(BFLOAT, TILE_NUMBERS)
            # 1.0 in bfloat16, twice a word
            ones = e.b.bitcast(e.const(vector(I32, _LANES), 0x3F803F80), bfloats)
            for i, (low, high) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
                name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
                rounded = e.call(name, bfloats, [high, low])
                e.store(rounded, target, 2 * TILE_NUMBERS * i)
                name = "llvm.x86.avx512bf16.dpbf16ps.512"
                total = e.call(name, self.floats, [total, rounded, ones])
            e.store(total, rows.totals, e.mul(row, 4 * _LANES))

        e.loop(0, TILE_ROWS, find_highest)
        e.loop(0, TILE_ROWS, note_fades, step=_LANES)
        e.loop(0, TILE_ROWS, write_weights)

    def mask(self, scores: list[Value], row: Value, block: Value) -> list[Value]:
        """Return a row's scores, those of keys that it does not see at the lowest."""
        e = self.e
        words = vector(I32, _LANES)
        places = e.b.add(
            e.broadcast(e.b.trunc(block, I32), _LANES), e.const_lanes(I32, range(_LANES))
        )
        begin, end = (
            e.broadcast(e.load(bounds, e.mul(row, 4), I32, align=4), _LANES)
            for bounds in (self.rows.begins, self.rows.ends)
        )
        masked = []
        for i, score in enumerate(scores):
            here = e.b.add(places, e.const(words, _LANES * i))
            is_visible = e.b.and_(
                e.b.icmp_signed("<=", begin, here), e.b.icmp_signed("<", here, end)
            )
            masked.append(e.b.select(is_visible, score, e.const(self.floats, _MASKED)))
        return masked

    def exp2(self, x: Value) -> Value:
        """Return 2^x of numbers up to 0, to 1.1e-4 of it.

        With n = round(x) and f = x - n, 2^x = 2^n 2^f; n + 127 is in the lowest bits of a float32.
        """
        e = self.e
        floats = x.type
        words = vector(I32, floats.count)
        x = e.binary("maxnum", x, e.const(floats, _LOWEST))
        rounder = e.const(floats, ROUNDER + 127)
        shifted = e.b.fadd(x, rounder)
        fraction = e.b.fsub(x, e.b.fsub(shifted, rounder))
        power = e.const(floats, _TERMS[-1])
        for term in _TERMS[-2::-1]:
            power = e.fma(power, fraction, e.const(floats, term))
        exponent = e.b.shl(e.b.bitcast(shifted, words), e.const(words, 23))
        return e.b.fmul(power, e.b.bitcast(exponent, floats))

    def load_number(self, base: Value, place: Value) -> Value:
        """Read one float32 into all lanes."""
        return self.e.broadcast(self.e.load(base, self.e.mul(place, 4), F32, align=4), _LANES)
