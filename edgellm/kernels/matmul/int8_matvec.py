"""One token times a quantized weight with int8 activations, at the memory's speed.

Each row is read once, as it lies. A token gets the same results among others: a group's products
are summed exactly, in integers, and the groups' sums are added in an order that every kernel of few
tokens has (``few_rows``)::

    groups       0 1 2 ... b-1 | b b+1 ... 2b-1 | ... | the remainder        b = isa.block
    first        groups that are b apart, one after the other: b running sums
    then         those sums by halves, until one is left
    then         the groups of the remainder, one after the other

How a block of b = 8 groups is summed, with 16 lanes, 4-bit codes and groups of 64 (8 words of 4
bytes each; a digit is a lane of a group)::

    load 0       0000 0000 1111 1111     128 codes of a row, then the products of its even and odd
    load 1       2222 2222 3333 3333     places: each lane sums those of its word
    load 2, 3    ...
    sums         0123 4567               one lane a group (group_sums.py)
    two rows     0123 4567 0123 4567     side by side fill a vector of running sums
"""

# L tokens, O out_features, K in_features, n groups of a row

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_tiles
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.group_sums import PartialSums, one_lane_a_group
from edgellm.kernels.matmul.int8_rows import Int8Rows, WeightRow

_ROWS_AT_ONCE = 2
"""Rows that are summed side by side, which fill a vector of 16 running sums.

More of them are more streams from one page of memory: four take 3 to 7 % longer.
"""


def emit_int8_matvec(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``int8_matvec``: ``out[t] (+)= weight . x[t]``, for one token.

    A group adds scale * (codes . activation codes) * activation scale + bias * activation sum.
    Activations are (L, K) int8 in the order ``split`` (4 bits) or as they come (8 bits), their
    scales and sums (L, n). The arguments are those of ``abi.INT8_MATVEC``.
    """
    return _Int8Matvec(isa, name, weight_format).emit(_ROWS_AT_ONCE)


class _Int8Matvec(Int8Rows):
    """The loops over rows and groups."""

    def emit(self, rows_at_once: int) -> str:
        e = self.e
        own, shared = e.argument("stretch_rows"), e.argument("item_rows")
        parallel_for_tiles(
            e, self.out_features, rows_at_once, self.multiply, stretch=own, chunk=shared
        )
        return e.finish()

    def multiply(self, row: Value, rows: int) -> None:
        """Multiply some rows."""
        e = self.e
        weights = self.weight_rows(row, rows)
        # rows that share a vector of running sums
        rows_per_vector = min(rows, self.isa.lanes // self.block)
        row_sets = [weights[i : i + rows_per_vector] for i in range(0, rows, rows_per_vector)]

        def one_block(group: Value, *sums: Value) -> Sequence[Value]:
            for weight in weights:
                # as many bytes of the same row, a prefetch distance further on
                offset = e.mul(group, self.group_bytes)
                e.prefetch(weight.codes, offset, self.block * self.group_bytes)
            return [
                self.add_block(row_set, group, total)
                for row_set, total in zip(row_sets, sums, strict=True)
            ]

        zeros = [e.const(vector(F32, rows_per_vector * self.block), 0.0)] * len(row_sets)
        sums = e.loop(0, self.blocks_end, one_block, zeros, step=self.block)
        results = []
        for i in range(rows):
            row_set, place = divmod(i, rows_per_vector)
            own_sums = e.part(sums[row_set], place * self.block, self.block)
            results.append(e.sum_by_halves(own_sums))
        one_group = partial(self.add_group, weights)
        results = e.loop(self.blocks_end, self.groups, one_group, results)
        for i, result in enumerate(results):
            self.put(result, e.index(0), e.add(row, i))

    def add_block(self, rows: Sequence[WeightRow], group: Value, total: Value) -> Value:
        """Return running sums with a block of groups added, rows side by side."""
        e, lanes = self.e, self.isa.lanes
        factors = self.load_factors(rows, group, self.block)
        codes = [self.inputs.codes]
        loads_per_row = self.block * self.group_lanes // lanes

        def one_load(number: int) -> PartialSums:
            row, place = divmod(number, loads_per_row)
            first = place * (lanes // self.group_lanes)
            ints = self.multiply_codes(codes, rows[row].codes, e.add(group, first), lanes)
            first += row * self.block  # groups are numbered through all rows
            return PartialSums(ints, [first + lane // self.group_lanes for lane in range(lanes)])

        [ints] = one_lane_a_group(e, one_load, loads_per_row * len(rows))
        input_factors = self.load_input_factors(self.inputs, group, self.block, copies=len(rows))
        return self.add_products(ints, factors, input_factors, total)

    def add_group(self, rows: Sequence[WeightRow], group: Value, *results: Value) -> list[Value]:
        """Return the rows' results with one group added."""
        e = self.e
        input_factors = self.load_input_factors(self.inputs, group, 1)
        after = []
        for row, before in zip(rows, results, strict=True):
            factors = self.load_factors([row], group, 1)
            [ints] = self.multiply_codes([self.inputs.codes], row.codes, group, self.group_lanes)
            total = e.broadcast(e.reduce_sum(ints), 1)
            after.append(self.add_products(total, factors, input_factors, before))
        return after
