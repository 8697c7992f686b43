"""Many tokens times a weight of any format, in float32."""

# O out_features, K in_features

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import F32, Value
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.matmul_frame import MatmulFrame


def emit_float_matmul(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``float_matmul``; activations are packed float32.

    The arguments are those of ``abi.MATMUL``.
    """
    return _FloatMatmul(isa, name, weight_format).emit()


class _FloatMatmul(MatmulFrame):
    def unpack_row(self, row: Value, place: Value, target: Value) -> None:
        self.panel.write_float32(row, target)

    def multiply(self, count: Value, first_vector: Value, vectors: int) -> None:
        """Sum some rows times some vectors of tokens in registers, over all columns."""
        e, lanes = self.e, self.lanes
        # a sum for each row and vector of tokens, and one input a vector: 8 * 2 + 2 registers of 32
        rows_at_once = 4
        if self.isa.registers == 32:
            rows_at_once = 8
        vector_offset = e.mul(e.mul(first_vector, self.in_features), 4 * lanes)
        inputs = e.at(self.activations, vector_offset)
        input_bytes = e.mul(self.in_features, 4 * lanes)  # from one vector of tokens to the next

        def some_rows(first: Value) -> None:
            rows = [self.panel_row(e.add(first, i)) for i in range(rows_at_once)]

            def one_column(column: Value, *sums: Value) -> Sequence[Value]:
                numbers = [
                    e.load(
                        inputs,
                        e.add(e.mul(input_bytes, part), e.mul(column, 4 * lanes)),
                        self.floats,
                    )
                    for part in range(vectors)
                ]
                results = []
                for i, row in enumerate(rows):
                    weight = e.load(row, e.mul(column, 4), F32, align=4)
                    weight = e.broadcast(weight, lanes)
                    own_sums = sums[i * vectors : (i + 1) * vectors]
                    results += [
                        e.fma(weight, number, total)
                        for number, total in zip(numbers, own_sums, strict=True)
                    ]
                return results

            zeros = [e.const(self.floats, 0.0)] * (rows_at_once * vectors)
            sums = e.loop(0, self.in_features, one_column, zeros)
            self.store_sums(first, vectors, sums)

        # the panel has room for whole steps; results of rows past the last one are never written
        e.loop(0, count, some_rows, step=rows_at_once)
