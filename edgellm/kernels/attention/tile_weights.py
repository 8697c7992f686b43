"""The softmax between the two products of tiles: scores become weights in bfloat16."""

# D head size; a row is one query

from __future__ import annotations

import math
from typing import NamedTuple

from edgellm.kernels.attention.scratch import TILE_ROWS, TILE_SCORE_BYTES
from edgellm.kernels.codegen.abi import KEY_BLOCK, TILE_NUMBERS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import ROUNDER
from edgellm.kernels.codegen.values import BFLOAT, F32, I32, Value, vector

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
WEIGHT_BYTES = 2 * KEY_BLOCK


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


class Tile(NamedTuple):
    """32 rows: the first, where their scores and weights are, and which of the block they see."""

    row: Value
    scores: Value
    weights: Value
    begin: Value  # the first place in the block, of the tile that it is in
    stop: Value  # the place after the last
    is_whole: Value  # whether every row sees all of the block


class TileWeights:
    """Weighs the scores of tiles of rows.

    Args:
        e: the kernel.
        head_dim: D, a multiple of 32.
        rows: of the thread.
    """

    def __init__(self, e: Emitter, head_dim: int, rows: TileRows) -> None:
        self.e = e
        self.head_dim = head_dim
        self.rows = rows
        self.floats: Value = vector(F32, _LANES)

    def weigh(self, of: Tile, block: Value) -> None:
        """Weigh the scores of a tile; what all rows see whole needs no masks."""
        e = self.e
        e.when(of.is_whole, lambda: self.weigh_rows(of, block, masked=False))
        e.when(e.b.not_(of.is_whole), lambda: self.weigh_rows(of, block, masked=True))

    def weigh_rows(self, of: Tile, block: Value, *, masked: bool) -> None:
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
            target = e.at(of.weights, e.mul(place, WEIGHT_BYTES))
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
