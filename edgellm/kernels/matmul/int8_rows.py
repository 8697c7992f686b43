"""The rows of a quantized weight and int8 activations: their addresses, a group's products.

``int8_matvec`` multiplies one token with these, ``int8_few`` several.
"""

# L tokens, O out_features, K in_features, n groups of a row

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgellm.kernels.codegen.abi import INT8_MATVEC
from edgellm.kernels.codegen.dot import as_weights, dot, signed_weights
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.unpack import load_rows
from edgellm.kernels.codegen.values import F32, I8, I32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat


class WeightRow(NamedTuple):
    """Addresses of a row of the weight."""

    codes: Value
    scales: Value
    biases: Value


class Input(NamedTuple):
    """Addresses of a token's activations."""

    codes: Value
    scales: Value
    sums: Value


class Int8Rows:
    """The kernel's arguments, and the products of a group's codes with its scale and bias."""

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e: Emitter = Emitter(isa, name, INT8_MATVEC)
        e = self.e
        self.isa = isa
        self.format = weight_format
        self.inputs: Input = Input(
            e.address("activations"), e.address("activation_scales"), e.address("activation_sums")
        )
        self.weight: WeightRow = WeightRow(
            e.address("weight"), e.address("scales"), e.address("biases")
        )
        self.out_features: Value = e.argument("out_features")
        self.groups: Value = e.argument("groups")
        self.out: Value = e.address("out")
        self.out_stride: Value = e.argument("out_stride")
        self.add: Value = e.argument("add")
        self.tokens: Value = e.tokens
        self.group_bytes: int = weight_format.group * weight_format.bits // 8
        self.group_words: int = self.group_bytes // 4
        # lanes that the sums of one group fill; a larger group fills all of them several times
        self.group_lanes: int = min(isa.lanes, self.group_words)
        self.in_features: Value = e.mul(self.groups, weight_format.group)
        self.row_bytes: Value = e.mul(self.groups, self.group_bytes)
        self.scale_bytes: Value = e.mul(self.groups, weight_format.item_bytes)
        self.block: int = isa.block
        self.blocks_end: Value = e.round_down(self.groups, self.block)

    def weight_rows(self, first: Value, count: int) -> list[WeightRow]:
        """Return the addresses of ``count`` rows of the weight."""
        row_bytes = (self.row_bytes, self.scale_bytes, self.scale_bytes)
        return [WeightRow(*own) for own in self.rows_at(self.weight, row_bytes, first, count)]

    def input_rows(self, first: Value, count: int) -> list[Input]:
        """Return the addresses of the activations of ``count`` tokens."""
        scale_bytes = self.e.mul(self.groups, 4)
        row_bytes = (self.in_features, scale_bytes, scale_bytes)
        return [Input(*own) for own in self.rows_at(self.inputs, row_bytes, first, count)]

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

    def load_factors(
        self, rows: Sequence[WeightRow], group: Value, count: int
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
        self, own: Input, group: Value, count: int, *, copies: int = 1
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
