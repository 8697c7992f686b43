"""Up to 8 tokens times a quantized weight with int8 activations, in tiles of integers (AMX).

Integers are exact and the float32 sums have the order of ``int8_matvec``, so every result is bit
for bit what one token alone gets. Tokens are the rows of a tile, so that 8 take half the time of
16, and rows of the weight its columns.

The groups of one running sum follow each other (0, 8, 16, 24, then 1, 9, ...), so that it stays in
registers; four blocks of groups at a time, whose codes and inputs the first-level cache holds.
Three stages are under way at once, since what was just stored cannot be loaded as a tile at once,
nor a tile's rows::

    unpack     place p + 2    codes -> scratch, as bytes
    multiply   place p + 1    scratch -> tiles -> integers in scratch
    add up     place p        integers, scales and biases -> float32 sums
"""

# L tokens, O out_features, K in_features, n groups of a row

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from edgellm.kernels.codegen.abi import TILE
from edgellm.kernels.codegen.emitter import Body
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_runs
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.few_rows.few_stages import SLOTS, SUMS_BYTES, FewStages
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES, release_tiles

_SPAN_BLOCKS = 4
"""Blocks of groups whose running sums stay in registers one after the other."""


def emit_tile_few(isa: Isa, name: str, weight_format: WeightFormat, tokens: int) -> str:
    """Emit ``tile_few``: ``out[t] (+)= weight . x[t]``, for up to ``tokens`` tokens, 4 or 8.

    The weight has 16 rows or more. Activations are rows of codes; their scales (n, 16) and sums
    (n, 16) are packed. The arguments are those of ``abi.INT8_MATVEC``.
    """
    return _TileFew(isa, name, weight_format, tokens).emit()


class _TileFew(FewStages):
    """The loops over rows and groups, and the way of results into ``out``."""

    def emit(self) -> str:
        e = self.e
        self.write_order()

        def one_run(first: Value, stop: Value) -> None:
            offset = e.mul(e.min(first, e.sub(self.out_features, TILE)), self.row_bytes)
            nbytes = e.b.select(e.less(first, stop), e.mul(self.row_bytes, TILE), e.index(0))
            e.prefetch_range((self.weight,), offset, nbytes)
            e.loop(first, stop, lambda row: self.multiply_rows(row, stop), step=TILE)

        own, shared = e.argument("stretch_rows"), e.argument("item_rows")
        parallel_for_runs(e, self.out_features, one_run, stretch=own, chunk=shared)
        release_tiles(e)
        return e.finish()

    def write_order(self) -> None:
        """Write the numbers of the groups as they are multiplied; some more that can be read."""
        e, block = self.e, self.block

        def one_sum(first: Value, blocks: Value, number: Value, place: Value) -> Sequence[Value]:
            def one_group(of_sum: Value, place: Value) -> Sequence[Value]:
                group = e.add(e.mul(e.add(first, of_sum), block), number)
                e.store(group, self.order, e.mul(place, 8), align=8)
                return [e.add(place, 1)]

            return e.loop(0, blocks, one_group, [place])

        [place] = self.loop_of_sums(one_sum, [e.index(0)])
        for number in range(SLOTS):
            e.store(e.index(0), self.order, e.mul(e.add(place, number), 8), align=8)

    def loop_of_sums(self, body: Body, carried: Sequence[Value]) -> list[Value]:
        """Do ``body(first block, blocks, number, *carried)`` for each running sum of each span."""
        e = self.e
        all_blocks = e.div(self.groups, self.block)

        def one_span(first: Value, *values: Value) -> Sequence[Value]:
            blocks = e.min(_SPAN_BLOCKS, e.sub(all_blocks, first))

            def one_sum(number: Value, *values: Value) -> Sequence[Value] | None:
                return body(first, blocks, number, *values)

            return e.loop(0, self.block, one_sum, values)

        return e.loop(0, all_blocks, one_span, carried, step=_SPAN_BLOCKS)

    def multiply_rows(self, first: Value, stop: Value) -> None:
        """Multiply up to 16 rows with all tokens.

        Where fewer are left, the tile begins earlier, and what is known already is not written
        again.
        """
        e = self.e
        start, weight, ahead, next_weight = self.rows_of_tile(first, stop)
        self.load_factors(start)
        self.prefetch_factors(start, ahead)
        self.sum_blocks(weight, next_weight)

        def remaining_group(group: Value) -> None:
            slot = e.index(0)
            self.unpack(weight, group, slot)
            self.multiply(group, slot, 0)
            totals = self.load_totals(self.results)
            self.store_totals(self.add_group(group, slot, totals), self.results)

        e.loop(self.blocks_end, self.groups, remaining_group)
        self.write(start, first, e.min(stop, e.add(first, TILE)))

    def sum_blocks(self, weight: Value, next_weight: Value) -> None:
        """Write the results of all whole blocks."""
        e = self.e
        zeros = e.const(self.floats, 0.0)

        def begin() -> None:
            for place in range(2):
                self.unpack(weight, self.group_at(e.index(place)), e.index(place))
            self.multiply(self.group_at(e.index(0)), e.index(0), 1)

        def one_sum(first: Value, blocks: Value, number: Value, place: Value) -> Sequence[Value]:
            sums = e.at(self.sums, e.mul(number, SUMS_BYTES))
            is_first = e.less(first, 1)
            totals = [e.b.select(is_first, zeros, total) for total in self.load_totals(sums)]

            def one_group(of_sum: Value, *state: Value, tiles: int = 0) -> list[Value]:
                place, *totals = state
                nbytes = TILE * self.group_bytes
                e.prefetch(next_weight, e.mul(place, nbytes), nbytes, ahead=0)
                own, other = e.b.and_(place, e.index(1)), e.b.and_(e.add(place, 1), e.index(1))
                self.unpack(weight, self.group_at(e.add(place, 2)), own)
                self.multiply(self.group_at(e.add(place, 1)), other, tiles)
                group = e.add(e.mul(e.add(first, of_sum), self.block), number)
                totals = self.add_group(group, own, totals)
                # unpacking the next group needs the registers
                return [e.add(place, 1), *map(e.in_order, totals)]

            def two_groups(of_sum: Value, *state: Value) -> list[Value]:
                return one_group(e.add(of_sum, 1), *one_group(of_sum, *state), tiles=1)

            pairs_end = e.round_down(blocks, 2)
            state = e.loop(0, pairs_end, two_groups, [place, *totals], step=2)
            place, *totals = e.loop(pairs_end, blocks, one_group, state)
            self.store_totals(totals, sums)
            return [place]

        e.when(e.less(0, self.blocks_end), begin)
        self.loop_of_sums(one_sum, [e.index(0)])
        is_any = e.less(0, self.blocks_end)
        for token in range(self.most_tokens):
            offset = token * TILE_ROW_BYTES
            parts = [
                e.load(self.sums, number * SUMS_BYTES + offset, self.floats, align=64)
                for number in range(self.block)
            ]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [e.b.fadd(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
            e.store(e.b.select(is_any, parts[0], zeros), self.results, offset, align=64)

    def load_totals(self, base: Value) -> list[Value]:
        """Read a vector of 16 rows for each token."""
        return [
            self.e.load(base, token * TILE_ROW_BYTES, self.floats, align=64)
            for token in range(self.most_tokens)
        ]

    def store_totals(self, totals: Sequence[Value], base: Value) -> None:
        """Write a vector of 16 rows for each token."""
        for token, total in enumerate(totals):
            self.e.store(total, base, token * TILE_ROW_BYTES, align=64)

    def write(self, start: Value, first: Value, end: Value) -> None:
        """Write results; only rows from ``first`` to before ``end``."""
        e = self.e
        skipped = e.sub(first, start)
        count = e.sub(end, start)
        are_all = e.b.icmp_signed("==", e.sub(count, skipped), e.index(TILE))
        is_added = e.less(0, self.add)

        def put(source: Value, target: Value, place: Value, lanes: int) -> None:
            offset = e.mul(place, 4)
            floats = vector(F32, lanes)
            before = e.load(target, offset, floats)
            before = e.b.select(is_added, before, e.const(floats, 0.0))
            e.store(e.b.fadd(e.load(source, offset, floats), before), target, offset)

        def one_token(token: Value) -> None:
            source = e.at(self.results, e.mul(token, TILE_ROW_BYTES))
            row_begin = e.mul(token, self.out_stride)
            target = e.at(self.out, e.add(row_begin, e.mul(start, 4)))
            one_row = partial(put, source, target, lanes=1)
            e.when(are_all, lambda: put(source, target, e.index(0), TILE))
            e.when(e.b.not_(are_all), lambda: e.loop(skipped, count, one_row))

        e.loop(0, self.tokens, one_token)
