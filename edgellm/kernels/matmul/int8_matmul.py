"""Many tokens times a quantized weight, with int8 activations."""

# K in_features, n groups of a row

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.dot import dot, signed_weights
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import F32, I8, I32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.matmul_frame import MatmulFrame

_FACTOR_BYTES = 8
"""Scale and bias of a group, float32."""


def emit_int8_matmul(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``int8_matmul``; activations are packed words of four codes, in the order ``split``.

    Their scales and sums are packed, too: (ceil(L / lanes), n, lanes). The arguments are those of
    ``abi.MATMUL``.
    """
    return _Int8Matmul(isa, name, weight_format).emit()


class _Int8Matmul(MatmulFrame):
    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        super().__init__(isa, name, weight_format)
        e = self.e
        self.words = vector(I32, self.lanes)
        self.codes = vector(I8, 4 * self.lanes)
        self.groups = self.panel.groups
        self.rows_at_once = 2
        if isa.registers == 32:
            self.rows_at_once = 4
        self.factors = e.at(self.panel_rows, e.mul(self.block_rows, self.panel_row_bytes))
        self.factor_row_bytes = e.mul(self.groups, _FACTOR_BYTES)
        self.runs = 1
        if weight_format.bits == 4:  # a group has a run of codes in each half of the row
            self.runs = 2
        self.run_words = weight_format.group // 4 // self.runs
        self.half_row_words = e.div(self.in_features, 8)

    def unpack_row(self, row: Value, place: Value, target: Value) -> None:
        e = self.e
        self.panel.write_bytes(row, target)

        def one_factor(group: Value) -> None:
            scale, bias = self.panel.scale_and_bias(row, group)
            if signed_weights(e, self.format.bits):
                bias = e.fma(scale, e.const(F32, 128.0), bias)
            offset = e.add(e.mul(place, self.factor_row_bytes), e.mul(group, _FACTOR_BYTES))
            e.store(scale, self.factors, offset, align=4)
            e.store(bias, self.factors, e.add(offset, 4), align=4)

        e.loop(0, self.groups, one_factor)

    def multiply(self, count: Value, first_vector: Value, vectors: int) -> None:
        """Sum some rows times some vectors of tokens in registers, over all groups."""
        e, lanes = self.e, self.lanes
        # from one vector of tokens to the next
        input_bytes = e.mul(self.in_features, lanes)
        inputs = e.at(self.activations, e.mul(first_vector, input_bytes))
        scale_bytes = e.mul(self.groups, 4 * lanes)
        scales, sums = (
            e.at(e.address(name), e.mul(first_vector, scale_bytes))
            for name in ("activation_scales", "activation_sums")
        )

        def load_inputs(base: Value, step: Value, place: Value, typ: Value) -> list[Value]:
            """Read a word of each vector of tokens."""
            return [
                e.load(base, e.add(e.mul(step, part), e.mul(place, 4 * lanes)), typ)
                for part in range(vectors)
            ]

        def some_rows(first: Value) -> None:
            rows = [self.panel_row(e.add(first, i)) for i in range(self.rows_at_once)]
            factors = [
                e.at(self.factors, e.mul(e.add(first, i), self.factor_row_bytes))
                for i in range(self.rows_at_once)
            ]

            def one_word(word: Value, *ints: Value) -> Sequence[Value]:
                """Add products of four codes to each integer."""
                codes = load_inputs(inputs, input_bytes, word, self.codes)
                results = []
                for i, row in enumerate(rows):
                    weights = e.broadcast(e.load(row, e.mul(word, 4), I32, align=4), lanes)
                    weights = e.b.bitcast(weights, self.codes)
                    for part, own_codes in enumerate(codes):
                        total = ints[i * vectors + part]
                        results.append(dot(e, total, weights, own_codes, self.format.bits))
                return results

            def one_group(group: Value, *totals: Value) -> Sequence[Value]:
                ints = [e.const(self.words, 0)] * (self.rows_at_once * vectors)
                for run in range(self.runs):
                    begin = e.mul(group, self.run_words)
                    begin = e.add(begin, e.mul(self.half_row_words, run))
                    ints = e.loop(begin, e.add(begin, self.run_words), one_word, ints)
                input_scales = load_inputs(scales, scale_bytes, group, self.floats)
                input_sums = load_inputs(sums, scale_bytes, group, self.floats)
                results = []
                for i, own_factors in enumerate(factors):
                    scale, bias = (
                        e.broadcast(
                            e.load(
                                own_factors,
                                e.add(e.mul(group, _FACTOR_BYTES), 4 * place),
                                F32,
                                align=4,
                            ),
                            lanes,
                        )
                        for place in (0, 1)
                    )
                    # scale * input scale * (codes . codes) + bias * input sum
                    for part in range(vectors):
                        number = i * vectors + part
                        biased = e.fma(bias, input_sums[part], totals[number])
                        exact = e.b.sitofp(ints[number], self.floats)
                        results.append(e.fma(exact, e.b.fmul(scale, input_scales[part]), biased))
                return results

            zeros = [e.const(self.floats, 0.0)] * (self.rows_at_once * vectors)
            self.store_sums(first, vectors, e.loop(0, self.groups, one_group, zeros))

        e.loop(0, count, some_rows, step=self.rows_at_once)
