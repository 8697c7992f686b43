"""Rows take in a block of keys: two products of tiles, and the softmax between them.

Each is done for 256 rows before the next begins: in a C loop, going from tiles to vectors and back
costs about 0.4 microseconds, and what was just stored cannot be loaded as a tile at once.
"""

# D head size; a row is one query

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgellm.kernels.attention.scratch import PHASE_TILES, TILE_ROWS, TILE_SCORE_BYTES
from edgellm.kernels.attention.tile_blocks import TILE_BYTES
from edgellm.kernels.attention.tile_weights import WEIGHT_BYTES, Tile, TileRows, TileWeights
from edgellm.kernels.codegen.abi import KEY_BLOCK, TILE, TILE_NUMBERS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.values import I8, I32, Value
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES, tile


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
        self.weights = TileWeights(e, head_dim, rows)

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

            def each(work: Callable[[Tile], None]) -> None:
                e.loop(begin, stop, lambda number: work(self.tile(number, begin, rows, block)))

            each(self.score)
            each(lambda tile: self.weights.weigh(tile, block))
            each(self.mix)

        e.loop(first, end, some_tiles, step=PHASE_TILES)

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

    def tile(self, number: Value, first: Value, rows: Value, block: Value) -> Tile:
        """Return what a tile of rows has to do with a block."""
        e = self.e
        lowest, highest = self.bounds(number, rows)
        row = e.mul(number, TILE_ROWS)
        last = e.min(e.add(row, TILE_ROWS - 1), e.sub(rows, 1))
        place = e.sub(number, first)
        return Tile(
            row,
            e.at(self.rows.scores, e.mul(place, TILE_ROWS * TILE_SCORE_BYTES)),
            e.at(self.rows.weights, e.mul(place, TILE_ROWS * WEIGHT_BYTES)),
            e.round_down(e.sub(e.max(lowest, block), block), TILE_NUMBERS),
            e.sub(e.min(e.add(block, KEY_BLOCK), highest), block),
            e.b.and_(
                e.less(self.bound("begins", last), e.add(block, 1)),
                e.less(e.add(block, KEY_BLOCK - 1), self.bound("ends", row)),
            ),
        )

    # --- products

    def score(self, of: Tile) -> None:
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

    def mix(self, of: Tile) -> None:
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
                    offset = e.add(TILE * WEIGHT_BYTES * part, e.mul(place, 2))
                    source = e.at(of.weights, offset)
                    tile(e, "tileloadd64", 4 + part, source, e.index(WEIGHT_BYTES))
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
