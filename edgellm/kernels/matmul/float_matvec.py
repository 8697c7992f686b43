"""Few tokens times a weight of any format, in float32: what every machine has."""

# L tokens, O out_features, K in_features, n groups of a row

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import FLOAT_MATVEC
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for_tiles
from edgellm.kernels.codegen.unpack import load_codes, load_float, load_floats
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat

_CODES_AT_ONCE = 32
"""Codes that are unpacked in one round; every group is a multiple of it."""

_DENSE_SUMS = 4
"""Sums of plain numbers side by side, since each addition waits for the one before."""


def emit_float_matvec(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``float_matvec``: ``out[t] (+)= weight . x[t]``, for one token.

    Activations are (L, K) float32. The arguments are those of ``abi.FLOAT_MATVEC``.
    """
    # several rows at once have sums that need not wait for each other
    rows_at_once = 1
    if not weight_format.dense:
        rows_at_once = isa.registers // 8
    return _FloatMatvec(isa, name, weight_format).emit(rows_at_once, tokens_at_once=1)


def emit_float_few(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``float_few``: the same for several tokens, each with the result it has alone.

    A weight becomes numbers once for up to eight of them.
    """
    kernel = _FloatMatvec(isa, name, weight_format)
    if weight_format.dense:
        return kernel.emit(1, tokens_at_once=isa.registers // 8)
    return kernel.emit(isa.registers // 16, tokens_at_once=isa.registers // 4)


class _FloatMatvec:
    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e = e = Emitter(isa, name, FLOAT_MATVEC)
        self.isa = isa
        self.format = weight_format
        self.activations = e.address("activations")
        self.weight = e.address("weight")
        self.scales = e.address("scales")
        self.biases = e.address("biases")
        self.out_features = e.argument("out_features")
        self.in_features = e.argument("in_features")
        self.out = e.address("out")
        self.out_stride = e.argument("out_stride")
        self.add = e.argument("add")
        self.row_bytes = e.b.lshr(e.mul(self.in_features, weight_format.weight_bits), e.index(3))
        self.groups = e.index(0)
        if not weight_format.dense:
            self.groups = e.div(self.in_features, weight_format.group)

    def emit(self, rows_at_once: int, *, tokens_at_once: int) -> str:
        e = self.e

        def some_rows(row: Value, rows: int) -> None:
            """Multiply with every token: this many at once, and what is left by halves."""
            begin = e.index(0)
            tokens = tokens_at_once
            while tokens:
                end = e.add(begin, e.round_down(e.sub(e.tokens, begin), tokens))
                rows_together = rows
                if tokens > self.isa.registers // 8:
                    rows_together = 1  # more sums do not fit the registers

                def some_tokens(
                    token: Value, tokens: int = tokens, rows_together: int = rows_together
                ) -> None:
                    for first in range(0, rows, rows_together):
                        self.multiply(e.add(row, first), rows_together, token, tokens)

                e.loop(begin, end, some_tokens, step=tokens)
                begin = end
                tokens //= 2

        own, shared = e.argument("stretch_rows"), e.argument("item_rows")
        parallel_for_tiles(e, self.out_features, rows_at_once, some_rows, stretch=own, chunk=shared)
        return e.finish()

    def multiply(self, row: Value, rows: int, token: Value, tokens: int) -> None:
        """Write or add the results of some rows and some tokens."""
        e = self.e
        inputs = [
            e.at(self.activations, e.mul(e.add(token, t), e.mul(self.in_features, 4)))
            for t in range(tokens)
        ]
        row_numbers = [e.add(row, i) for i in range(rows)]
        weights = [e.at(self.weight, e.mul(number, self.row_bytes)) for number in row_numbers]
        # a list of tokens for each row
        if self.format.dense:
            results = [self.multiply_dense(weight, inputs) for weight in weights]
        else:
            results = self.multiply_codes(weights, self.factors_of(row_numbers), inputs)
        for number, row_results in zip(row_numbers, results, strict=True):
            for t, result in enumerate(row_results):
                offset = e.mul(e.add(token, t), self.out_stride)
                offset = e.add(offset, e.mul(number, 4))
                is_added = e.less(0, self.add)
                before = e.load(self.out, offset, F32, align=4)
                before = e.b.select(is_added, before, e.const(F32, 0.0))
                e.store(e.b.fadd(result, before), self.out, offset, align=4)

    # --- codes

    def factors_of(self, row_numbers: Sequence[Value]) -> list[tuple[Value, Value]]:
        """Return where each row's scales and biases begin."""
        e = self.e
        offsets = [
            e.mul(e.mul(number, self.groups), self.format.item_bytes) for number in row_numbers
        ]
        return [(e.at(self.scales, offset), e.at(self.biases, offset)) for offset in offsets]

    def multiply_codes(
        self,
        weights: Sequence[Value],
        factors: Sequence[tuple[Value, Value]],
        inputs: Sequence[Value],
    ) -> list[list[Value]]:
        """Return the products of rows of codes with each token's numbers: a list a row.

        Each row and token has a sum for every vector of the codes that are unpacked at once.
        """
        e = self.e
        bits, kind = self.format.bits, self.format.kind
        lanes = max(8, self.isa.lanes)
        floats = vector(F32, lanes)
        parts = _CODES_AT_ONCE // lanes

        def one_group(group: Value, *sums: Value) -> Sequence[Value]:
            offset = e.mul(group, self.format.item_bytes)
            scales_and_biases = [
                [e.broadcast(load_float(e, base, offset, kind), lanes) for base in row_factors]
                for row_factors in factors
            ]

            def some_codes(place: Value, *sums: Value) -> Sequence[Value]:
                column = e.add(e.mul(group, self.format.group), place)
                offset = e.b.lshr(e.mul(column, bits), e.index(3))
                so_far = iter(sums)
                results = []
                for weight, (scale, bias) in zip(weights, scales_and_biases, strict=True):
                    codes = load_codes(e, weight, offset, bits, _CODES_AT_ONCE)
                    for part in range(parts):
                        part_codes = e.part(codes, part * lanes, lanes)
                        numbers = e.fma(e.b.uitofp(part_codes, floats), scale, bias)
                        for own in inputs:
                            place = e.mul(e.add(column, part * lanes), 4)
                            activations = e.load(own, place, floats)
                            results.append(e.fma(numbers, activations, next(so_far)))
                return results

            return e.loop(0, self.format.group, some_codes, sums, step=_CODES_AT_ONCE)

        row_sums = parts * len(inputs)
        zeros = [e.const(floats, 0.0)] * (row_sums * len(weights))
        sums = e.loop(0, self.groups, one_group, zeros)
        return [
            [
                self.total(sums[start + t : start + row_sums : len(inputs)])
                for t in range(len(inputs))
            ]
            for start in range(0, len(sums), row_sums)
        ]

    # --- plain numbers

    def multiply_dense(self, weight: Value, inputs: Sequence[Value]) -> list[Value]:
        """Return the products of a row of plain numbers and each token's."""
        e, kind, item_bytes = self.e, self.format.kind, self.format.item_bytes
        lanes = self.isa.lanes
        round_lanes = lanes * _DENSE_SUMS
        rounds_end = e.round_down(self.in_features, round_lanes)

        def add_products(place: Value, count: int, sums: Sequence[Value]) -> list[Value]:
            numbers = load_floats(e, weight, e.mul(place, item_bytes), kind, count)
            return [
                e.fma(numbers, e.load(own, e.mul(place, 4), vector(F32, count)), total)
                for own, total in zip(inputs, sums, strict=True)
            ]

        def one_round(place: Value, *sums: Value) -> Sequence[Value]:
            e.prefetch(weight, e.mul(place, item_bytes), round_lanes * item_bytes)
            results = []
            for part in range(_DENSE_SUMS):
                own_sums = sums[part * len(inputs) : (part + 1) * len(inputs)]
                results += add_products(e.add(place, part * lanes), lanes, own_sums)
            return results

        def one_place(place: Value, *sums: Value) -> Sequence[Value]:
            return add_products(place, 1, sums)

        zeros = [e.const(vector(F32, lanes), 0.0)] * (_DENSE_SUMS * len(inputs))
        sums = e.loop(0, rounds_end, one_round, zeros, step=round_lanes)
        zeros = [e.const(vector(F32, 1), 0.0)] * len(inputs)
        remainders = e.loop(rounds_end, self.in_features, one_place, zeros)
        results = []
        for t, remainder in enumerate(remainders):
            total = self.total(sums[t :: len(inputs)])
            results.append(e.b.fadd(total, e.reduce_sum(remainder)))
        return results

    def total(self, sums: Sequence[Value]) -> Value:
        """Return the sum of vectors and of their lanes."""
        total = sums[0]
        for other in sums[1:]:
            total = self.e.b.fadd(total, other)
        return self.e.reduce_sum(total)
