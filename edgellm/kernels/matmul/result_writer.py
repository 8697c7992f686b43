"""Results of a block of rows, tokens in the lanes, become a row a token."""

from __future__ import annotations

from edgellm.kernels.codegen.abi import TOKEN_VECTORS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.values import F32, Value, vector


class ResultWriter:
    """Writes results of a product of many tokens (``abi.MATMUL``) into ``out``.

    Args:
        e: the kernel.
        turned: scratch (lanes, block_rows) float32: results of a vector of tokens, a row a token.
    """

    def __init__(self, e: Emitter, turned: Value) -> None:
        self.e = e
        self.turned = turned
        self.lanes: int = e.isa.lanes
        self.result_bytes: int = 4 * TOKEN_VECTORS * self.lanes
        """From a row's results to the next row's."""
        self.out: Value = e.address("out")
        self.out_stride: Value = e.argument("out_stride")
        self.add: Value = e.argument("add")
        self.block_rows: Value = e.argument("block_rows")

    def write(self, source: Value, first_row: Value, count: Value, token_vector: Value) -> None:
        """Write results of one vector of tokens into ``out``.

        Args:
            source: their address: (count, RESULT_BYTES), tokens in the first lanes.
            first_row: of the weight.
            count: rows of it.
            token_vector: its number.
        """
        e, lanes = self.e, self.lanes
        first_token = e.mul(token_vector, lanes)
        tokens = e.min(lanes, e.sub(e.tokens, first_token))
        out = e.at(self.out, e.add(e.mul(first_token, self.out_stride), e.mul(first_row, 4)))
        squares_end = e.round_down(count, lanes)
        row_bytes = e.mul(self.block_rows, 4)

        def one_square(row: Value) -> None:
            """Turn results (lanes rows, lanes tokens) to a vector of rows for each token."""
            rows = [
                e.load(source, e.mul(e.add(row, i), self.result_bytes), vector(F32, lanes))
                for i in range(lanes)
            ]
            for number in range(lanes):  # the places of the next vector of tokens
                token = e.min(e.add(first_token, lanes + number), e.sub(e.tokens, 1))
                place = e.add(e.mul(token, self.out_stride), e.mul(e.add(first_row, row), 4))
                e.prefetch_to_write(self.out, place)
            for number, column in enumerate(e.transpose(rows)):
                e.store(column, self.turned, e.add(e.mul(row_bytes, number), e.mul(row, 4)))

        def one_row(row: Value) -> None:
            for token in range(lanes):
                offset = e.add(e.mul(row, self.result_bytes), 4 * token)
                number = e.load(source, offset, vector(F32, 1))
                e.store(number, self.turned, e.add(e.mul(row_bytes, token), e.mul(row, 4)))

        def write_tokens(*, add: bool) -> None:
            """Write token by token: rows of ``out`` are pages apart."""

            def one_token(token: Value) -> None:
                turned = e.at(self.turned, e.mul(token, row_bytes))
                target = e.at(out, e.mul(token, self.out_stride))

                def some_rows(row: Value, width: int) -> None:
                    offset = e.mul(row, 4)
                    numbers = e.load(turned, offset, vector(F32, width))
                    if add:
                        numbers = e.b.fadd(numbers, e.load(target, offset, numbers.type))
                    e.store(numbers, target, offset)

                e.sweep(count, some_rows)

            e.loop(0, tokens, one_token)

        e.loop(0, squares_end, one_square, step=lanes)
        e.loop(squares_end, count, one_row)
        is_added = e.less(0, self.add)
        e.when(is_added, lambda: write_tokens(add=True))
        e.when(e.b.not_(is_added), lambda: write_tokens(add=False))
