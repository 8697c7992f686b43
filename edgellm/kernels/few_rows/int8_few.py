"""Several tokens times a quantized weight with int8 activations, their sums in registers.

Codes are unpacked once for up to four tokens. Every sum has the order of ``matmul/int8_matvec.py``,
so that each token gets bit for bit what it gets alone.
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
from edgellm.kernels.matmul.int8_rows import Input, Int8Rows, WeightRow

_ROWS_AT_ONCE = {4: 2, 8: 4}
"""Rows that are summed side by side where registers allow, by the bits of a code.

A pass of four tokens (AVX-512): with four rows of 4 bits 6 to 13 % longer than with two; with two
of 8 bits 5 % longer than with four.
"""


def emit_int8_few(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``int8_few``: ``out[t] (+)= weight . x[t]``, for several tokens.

    As many rows and tokens are summed side by side as registers hold. The arguments are those of
    ``abi.INT8_MATVEC``, and activations are as in ``int8_matvec``.
    """
    rows, tokens = 2, 2
    if isa.registers == 32:
        rows, tokens = _ROWS_AT_ONCE[weight_format.bits], 4
    return _Int8Few(isa, name, weight_format).emit(rows, tokens)


class _Int8Few(Int8Rows):
    """The loops over rows, tokens and groups."""

    def emit(self, rows_at_once: int, tokens_at_once: int) -> str:
        e = self.e

        def some_rows(row: Value, rows: int) -> None:
            """Multiply with every token: some at once, then by halves; one row with one token."""
            tokens = tokens_at_once
            if rows == 1:
                tokens = 1
            begin = e.index(0)
            while tokens:
                end = e.add(begin, e.round_down(e.sub(self.tokens, begin), tokens))

                def some_tokens(token: Value, tokens: int = tokens) -> None:
                    self.multiply(row, rows, token, tokens)

                e.loop(begin, end, some_tokens, step=tokens)
                begin = end
                tokens //= 2

        own, shared = e.argument("stretch_rows"), e.argument("item_rows")
        parallel_for_tiles(e, self.out_features, rows_at_once, some_rows, stretch=own, chunk=shared)
        return e.finish()

    def multiply(self, row: Value, rows: int, token: Value, tokens: int) -> None:
        """Multiply some rows with some tokens."""
        e = self.e
        inputs = self.input_rows(token, tokens)
        weights = self.weight_rows(row, rows)
        # rows that share a vector of running sums
        rows_per_vector = min(rows, self.isa.lanes // self.block)
        row_sets = [weights[i : i + rows_per_vector] for i in range(0, rows, rows_per_vector)]

        def one_block(group: Value, *sums: Value) -> Sequence[Value]:
            for weight in weights:
                # as many bytes of the same row, a prefetch distance further on
                offset = e.mul(group, self.group_bytes)
                e.prefetch(weight.codes, offset, self.block * self.group_bytes)
            results: list[Value] = []
            for number, row_set in enumerate(row_sets):
                own_sums = sums[number * tokens : (number + 1) * tokens]
                results += self.add_block(row_set, inputs, group, own_sums)
            return results

        zeros = [e.const(vector(F32, rows_per_vector * self.block), 0.0)] * len(row_sets) * tokens
        sums = e.loop(0, self.blocks_end, one_block, zeros, step=self.block)
        results = []  # a row's tokens side by side
        for i in range(rows):
            row_set, place = divmod(i, rows_per_vector)
            for t in range(tokens):
                own_sums = e.part(sums[row_set * tokens + t], place * self.block, self.block)
                results.append(e.sum_by_halves(own_sums))
        one_group = partial(self.add_group, weights, inputs)
        results = e.loop(self.blocks_end, self.groups, one_group, results)
        for number, result in enumerate(results):
            i, t = divmod(number, tokens)
            self.put(result, e.add(token, t), e.add(row, i))

    def add_block(
        self,
        rows: Sequence[WeightRow],
        inputs: Sequence[Input],
        group: Value,
        sums: Sequence[Value],
    ) -> list[Value]:
        """Return running sums with a block of groups added: a token each, rows side by side."""
        e, lanes = self.e, self.isa.lanes
        factors = self.load_factors(rows, group, self.block)
        codes = [own.codes for own in inputs]
        loads_per_row = self.block * self.group_lanes // lanes

        def one_load(number: int) -> PartialSums:
            row, place = divmod(number, loads_per_row)
            first = place * (lanes // self.group_lanes)
            ints = self.multiply_codes(codes, rows[row].codes, e.add(group, first), lanes)
            first += row * self.block  # groups are numbered through all rows
            return PartialSums(ints, [first + lane // self.group_lanes for lane in range(lanes)])

        ints = one_lane_a_group(e, one_load, loads_per_row * len(rows))
        results = []
        for own, own_ints, total in zip(inputs, ints, sums, strict=True):
            input_factors = self.load_input_factors(own, group, self.block, copies=len(rows))
            results.append(self.add_products(own_ints, factors, input_factors, total))
        return results

    def add_group(
        self, rows: Sequence[WeightRow], inputs: Sequence[Input], group: Value, *results: Value
    ) -> list[Value]:
        """Return results, one per row and token, with one group added."""
        e = self.e
        codes = [own.codes for own in inputs]
        after = []
        before = iter(results)
        for row in rows:
            factors = self.load_factors([row], group, 1)
            ints = self.multiply_codes(codes, row.codes, group, self.group_lanes)
            for own, own_ints in zip(inputs, ints, strict=True):
                total = e.broadcast(e.reduce_sum(own_ints), 1)
                input_factors = self.load_input_factors(own, group, 1)
                after.append(self.add_products(total, factors, input_factors, next(before)))
        return after
