"""Few tokens times a quantized weight with int8 activations, in tiles of integers (AMX).

Integers are exact and the float32 sums have the order of ``int8_matvec``, so every result is bit
for bit what one token alone gets. The time hardly depends on how many of the 16 tokens there are.

Three stages are under way at once, two groups apart, since what was just stored cannot be loaded as
a tile at once, nor a tile's rows::

    unpack     group g + 2    codes -> scratch, 16 rows of bytes (8-bit codes need none)
    multiply   group g        scratch -> tiles -> integers in scratch
    add up     group g - 2    integers, scales and biases -> float32 sums
"""

# L tokens, O out_features, K in_features, n groups of a row

from __future__ import annotations

from functools import partial

from edgellm.kernels.codegen.abi import TILE, TILE_GROUPS
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_runs
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.few_rows.tile_stages import TILE_BYTES, TileStages
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES, configure_tiles, release_tiles

_STAGE_DISTANCE = 2
"""Groups between a stage and the next."""


def emit_tile_matvec(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``tile_matvec``: ``out[t] (+)= weight . x[t]``, for up to 16 tokens.

    The weight has 16 rows or more. Activations are packed: words of four codes (K/4, 16), their
    scales (n, 16) and sums (n, 16). The arguments are those of ``abi.INT8_MATVEC``.
    """
    return _TileMatvec(isa, name, weight_format).emit()


class _TileMatvec(TileStages):
    """The loops over rows and groups, and the way of results into ``out``."""

    def emit(self) -> str:
        e = self.e
        configure_tiles(
            e,
            row_bytes=[TILE_ROW_BYTES, self.width, TILE_ROW_BYTES] * 2,
            rows=[TILE, TILE, self.width // 4] * 2,
        )

        def one_run(first: Value, stop: Value) -> None:
            offset = e.mul(e.min(first, e.sub(self.out_features, TILE)), self.row_bytes)
            nbytes = e.b.select(e.less(first, stop), e.mul(self.row_bytes, TILE), e.index(0))
            e.prefetch_range((self.weight,), offset, nbytes)
            e.loop(first, stop, lambda row: self.multiply_rows(row, stop), step=TILE)

        own, shared = e.argument("stretch_rows"), e.argument("item_rows")
        parallel_for_runs(e, self.out_features, one_run, stretch=own, chunk=shared)
        release_tiles(e)
        return e.finish()

    def multiply_rows(self, first: Value, stop: Value) -> None:
        """Multiply up to 16 rows with all tokens.

        Where fewer are left, the tile begins earlier, and what is known already is not written
        again.
        """
        e = self.e
        start, weight, ahead, next_weight = self.rows_of_tile(first, stop)
        self.load_factors(start)
        self.prefetch_factors(start, ahead)
        for number in range(self.block * TILE):
            e.store(e.const(self.floats, 0.0), self.sums, number * TILE_ROW_BYTES)
        for slot in range(_STAGE_DISTANCE):
            self.unpack(weight, e.min(e.index(slot), e.sub(self.groups, 1)), slot)

        def groups_of_all_slots(first_group: Value) -> None:
            for slot in range(TILE_GROUPS):
                group = e.add(first_group, slot)
                self.prefetch_group(next_weight, group)
                later = e.min(e.add(group, _STAGE_DISTANCE), e.sub(self.groups, 1))
                self.unpack(weight, later, (slot + _STAGE_DISTANCE) % TILE_GROUPS)
                self.multiply_group(weight, group, slot)
                self.add_earlier_group(first_group, group, slot)

        e.loop(0, self.blocks_end, groups_of_all_slots, step=TILE_GROUPS)

        def last_groups() -> None:
            for back in range(_STAGE_DISTANCE, 0, -1):
                sums = e.at(self.sums, (self.block - back) * TILE_BYTES)
                self.add_group(e.sub(self.blocks_end, back), -back % TILE_GROUPS, sums)

        e.when(e.less(0, self.blocks_end), last_groups)
        self.sum_by_halves()

        def remaining_group(group: Value) -> None:
            self.unpack(weight, group, 0)
            self.multiply_group(weight, group, 0)
            self.add_group(group, 0, self.results)

        e.loop(self.blocks_end, self.groups, remaining_group)
        self.write(start, first, e.min(stop, e.add(first, TILE)))

    def add_earlier_group(self, first_group: Value, group: Value, slot: int) -> None:
        """Add up the group that is two before this one.

        At the first groups there is none: something is added to ``results``, which are not written
        yet.
        """
        e = self.e
        if slot >= _STAGE_DISTANCE:
            earlier = e.sub(group, _STAGE_DISTANCE)
            sums = e.at(self.sums, e.mul(e.rem(earlier, self.block), TILE_BYTES))
        else:
            exists = e.less(0, first_group)
            earlier = e.b.select(exists, e.sub(group, _STAGE_DISTANCE), e.index(0))
            sums = e.at(self.sums, e.mul(e.rem(earlier, self.block), TILE_BYTES))
            sums = e.b.select(exists, sums, self.results)
        self.add_group(earlier, (slot - _STAGE_DISTANCE) % TILE_GROUPS, sums)

    # --- prefetching

    def prefetch_group(self, next_weight: Value, group: Value) -> None:
        """Ask for the part of the next rows' bytes that this group has among the bytes of these."""
        e = self.e
        nbytes = TILE * self.group_bytes
        e.prefetch(next_weight, e.mul(group, nbytes), nbytes, ahead=0)

    # --- results

    def sum_by_halves(self) -> None:
        """Write the sum of the block's sums: one half is added to the other until one is left."""
        e = self.e
        for row in range(TILE):
            parts = [
                e.load(self.sums, number * TILE_BYTES + row * TILE_ROW_BYTES, self.floats)
                for number in range(self.block)
            ]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [e.b.fadd(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
            e.store(parts[0], self.results, row * TILE_ROW_BYTES)

    def write(self, start: Value, first: Value, end: Value) -> None:
        """Write results, turned to a row a token; only rows from ``first`` to before ``end``."""
        e = self.e
        rows = [e.load(self.results, row * TILE_ROW_BYTES, self.floats) for row in range(TILE)]
        for number, column in enumerate(e.transpose(rows)):
            e.store(column, self.results, number * TILE_ROW_BYTES)
        skipped = e.sub(first, start)
        count = e.sub(end, start)
        are_all = e.b.icmp_signed("==", e.sub(count, skipped), e.index(TILE))
        is_added = e.less(0, self.add)

        def put(source: Value, target: Value, place: Value, lanes: int, *, add: bool) -> None:
            offset = e.mul(place, 4)
            floats = vector(F32, lanes)
            before = e.const(floats, 0.0)
            if add:
                before = e.load(target, offset, floats)
            e.store(e.b.fadd(e.load(source, offset, floats), before), target, offset)

        def write_tokens(*, all_rows: bool, add: bool) -> None:
            def one_token(token: Value) -> None:
                source = e.at(self.results, e.mul(token, TILE_ROW_BYTES))
                offset = e.add(e.mul(token, self.out_stride), e.mul(start, 4))
                target = e.at(self.out, offset)
                if all_rows:
                    put(source, target, e.index(0), TILE, add=add)
                else:
                    e.loop(skipped, count, lambda place: put(source, target, place, 1, add=add))

            e.loop(0, self.tokens, one_token)

        # four loops, so that none of them asks again at each token
        for rows_match, all_rows in ((are_all, True), (e.b.not_(are_all), False)):
            for add_matches, add in ((is_added, True), (e.b.not_(is_added), False)):
                write = partial(write_tokens, all_rows=all_rows, add=add)
                e.when(e.b.and_(rows_match, add_matches), write)
