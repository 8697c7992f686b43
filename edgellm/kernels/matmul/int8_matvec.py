"""Few tokens times a quantized weight with int8 activations, at the memory's speed.

Each row is read once, as it lies. A row's results do not depend on the tokens beside it: a group's
products are summed exactly, in integers, and the groups' sums are added in an order that every
kernel of few tokens has (``tile_matvec`` too)::

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

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from edgellm.kernels.codegen.abi import INT8_MATVEC
from edgellm.kernels.codegen.dot import as_weights, dot, signed_weights
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_tiles
from edgellm.kernels.codegen.unpack import load_rows
from edgellm.kernels.codegen.values import F32, I8, I32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.group_sums import PartialSums, one_lane_a_group

_ROWS_AT_ONCE = {4: 4, 8: 2}
"""Rows that are summed side by side, by the bits of a code: as many streams as memory serves best.

Measured: 25.1 ms instead of 26.4 a token for 4 bits; 8 bits lose by it.
"""


class _WeightRow(NamedTuple):
    """Addresses of a row of the weight."""

    codes: Value
    scales: Value
    biases: Value


class _Input(NamedTuple):
    """Addresses of a token's activations."""

    codes: Value
    scales: Value
    sums: Value


def emit_int8_matvec(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``int8_matvec``: ``out[t] (+)= weight . x[t]``, for one token.

    A group adds scale * (codes . activation codes) * activation scale + bias * activation sum.
    Activations are (L, K) int8 in the order ``split`` (4 bits) or as they come (8 bits), their
    scales and sums (L, n). The arguments are those of ``abi.INT8_MATVEC``.
    """
    rows_at_once = _ROWS_AT_ONCE[weight_format.bits]
    return _Int8Matvec(isa, name, weight_format).emit(rows_at_once, tokens_at_once=1)


def emit_int8_few(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``int8_few``: the same for several tokens.

    Codes are unpacked once for up to four of them, whose sums are held side by side.
    """
    at_once = 2
    if isa.registers == 32:
        at_once = 4
    return _Int8Matvec(isa, name, weight_format).emit(at_once, tokens_at_once=at_once)


class _Int8Matvec:
    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e = e = Emitter(isa, name, INT8_MATVEC)
        self.isa = isa
        self.format = weight_format
        self.inputs = _Input(
            e.address("activations"), e.address("activation_scales"), e.address("activation_sums")
        )
        self.weight = _WeightRow(e.address("weight"), e.address("scales"), e.address("biases"))
        self.out_features = e.argument("out_features")
        self.groups = e.argument("groups")
        self.out = e.address("out")
        self.out_stride = e.argument("out_stride")
        self.add = e.argument("add")
        self.tokens = e.tokens
        self.group_bytes = weight_format.group * weight_format.bits // 8
        self.group_words = self.group_bytes // 4
        # lanes that the sums of one group fill; a larger group fills all of them several times
        self.group_lanes = min(isa.lanes, self.group_words)
        self.in_features = e.mul(self.groups, weight_format.group)
        self.row_bytes = e.mul(self.groups, self.group_bytes)
        self.scale_bytes = e.mul(self.groups, weight_format.item_bytes)
        self.block = isa.block
        self.blocks_end = e.round_down(self.groups, self.block)

    def emit(self, rows_at_once: int, *, tokens_at_once: int) -> str:
        e = self.e

        def some_rows(row: Value, rows: int) -> None:
            """Multiply with every token: as many at once as there are rows for, then by halves."""
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

        item_rows = e.argument("item_rows")
        parallel_for_tiles(e, self.out_features, item_rows, rows_at_once, some_rows)
        return e.finish()

    def multiply(self, row: Value, rows: int, token: Value, tokens: int) -> None:
        """Multiply some rows with some tokens."""
        e = self.e
        input_scale_bytes = e.mul(self.groups, 4)
        input_bytes = (self.in_features, input_scale_bytes, input_scale_bytes)
        inputs = [_Input(*own) for own in self.rows_at(self.inputs, input_bytes, token, tokens)]
        weight_bytes = (self.row_bytes, self.scale_bytes, self.scale_bytes)
        weights = [_WeightRow(*own) for own in self.rows_at(self.weight, weight_bytes, row, rows)]
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

    def rows_at(
        self, bases: Sequence[Value], row_bytes: Sequence[Value], first: Value, count: int
    ) -> Iterator[list[Value]]:
        """Yield where ``count`` rows from ``first`` on begin, each in all of the arrays."""
        e = self.e
        for i in range(count):
            yield [
                e.at(base, e.mul(e.add(first, i), nbytes))
                for base, nbytes in zip(bases, row_bytes, strict=True)
            ]

    def add_block(
        self,
        rows: Sequence[_WeightRow],
        inputs: Sequence[_Input],
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
        self, rows: Sequence[_WeightRow], inputs: Sequence[_Input], group: Value, *results: Value
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

    def load_factors(
        self, rows: Sequence[_WeightRow], group: Value, count: int
    ) -> tuple[Value, Value]:
        """Return scales and biases of ``count`` groups of some rows, end to end."""
        e, kind = self.e, self.format.kind
        offset = e.mul(group, self.format.item_bytes)
        scale = load_rows(e, [row.scales for row in rows], offset, kind, count)
        bias = load_rows(e, [row.biases for row in rows], offset, kind, count)
        if signed_weights(e, self.format.bits):
            bias = e.fma(scale, e.const(scale.type, 128.0), bias)
        return scale, bias

    def load_input_factors(
        self, own: _Input, group: Value, count: int, *, copies: int = 1
    ) -> tuple[Value, Value]:
        """Return a token's scales and sums of ``count`` groups, so many times end to end."""
        e = self.e
        scale, total = (
            e.concat([e.load(base, e.mul(group, 4), vector(F32, count))] * copies)
            for base in (own.scales, own.sums)
        )
        return scale, total

    def add_products(
        self,
        ints: Value,
        factors: tuple[Value, Value],
        input_factors: tuple[Value, Value],
        total: Value,
    ) -> Value:
        """Return running sums with some groups added, in the rounding that all kernels have."""
        e = self.e
        scale, bias = factors
        input_scale, input_sum = input_factors
        exact = e.b.sitofp(ints, total.type)
        scales = e.b.fmul(scale, input_scale)
        return e.fma(exact, scales, e.fma(bias, input_sum, total))

    def multiply_codes(
        self, codes: Sequence[Value], weight: Value, group: Value, lanes: int
    ) -> list[Value]:
        """Return products of the codes from ``group`` on with each token's, (lanes,) integers.

        A group that is wider than the lanes is summed in several rounds.
        """
        e, bits = self.e, self.format.bits
        byte_lanes = vector(I8, 4 * lanes)
        totals = [e.const(vector(I32, lanes), 0)] * len(codes)
        begin = e.mul(group, self.group_bytes)
        half_row = e.b.lshr(self.in_features, e.index(1))
        for turn in range(max(1, self.group_words // lanes)):
            offset = e.add(begin, 4 * turn * lanes)
            packed = e.load(weight, offset, byte_lanes)
            if bits == 8:
                parts = [(as_weights(e, packed, 8), offset)]
            else:
                # low halves are even places, which activations have in a row's first half
                low = e.b.and_(packed, e.const(byte_lanes, 15))
                high = e.b.lshr(packed, e.const(byte_lanes, 4))
                parts = [(low, offset), (high, e.add(offset, half_row))]
            for weights, place in parts:
                totals = [
                    dot(e, total, weights, e.load(own, place, byte_lanes), bits)
                    for own, total in zip(codes, totals, strict=True)
                ]
        return totals

    def put(self, result: Value, token: Value, row: Value) -> None:
        """Write or add a result."""
        e = self.e
        offset = e.add(e.mul(token, self.out_stride), e.mul(row, 4))
        before = e.load(self.out, offset, result.type, align=4)
        before = e.b.select(e.less(0, self.add), before, e.const(result.type, 0.0))
        e.store(e.b.fadd(result, before), self.out, offset, align=4)
