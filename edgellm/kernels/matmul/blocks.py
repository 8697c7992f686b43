"""The frame of a matrix product of many tokens: blocks of rows are unpacked once, then multiplied with all tokens."""

from __future__ import annotations

from collections.abc import Callable

from edgellm.kernels.codegen.abi import VECTORS
from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.panel import Panel


class Frame:
    """A product's arguments and the loops that every form of it shares.

    Arguments: 1 packed activations, 2 their scales and 3 sums (int8 only), 4 weight, 5 scales, 6
        biases, 7 rows, 8 columns, 9 out, 10 bytes from one token's results to the next's, 11
        whether to add to what is there, 12 rows of a block, 13 bytes of an unpacked row.
    """

    def __init__(self, isa: Isa, name: str, form: WeightFormat) -> None:
        self.e = e = Emitter(isa, name)
        self.isa, self.form, self.vectors = isa, form, VECTORS
        self.activations, self.weight = e.address(1), e.address(4)
        self.rows, self.columns = e.argument(7), e.argument(8)
        self.out, self.stride, self.adds = e.address(9), e.argument(10), e.argument(11)
        self.block, self.row_bytes = e.argument(12), e.argument(13)
        self.lanes = isa.lanes
        self.tokens = e.tokens
        self.token_lanes = VECTORS * isa.lanes
        self.result_bytes = 4 * self.token_lanes
        """From a row of the block's results to the next."""
        self.results = e.scratch
        self.square = e.at(self.results, e.mul(self.block, self.result_bytes))
        self.panel_at = e.at(self.square, 4 * self.lanes * self.lanes)
        self.panel = Panel(
            e,
            form,
            weight=self.weight,
            scales=e.address(5),
            biases=e.address(6),
            columns=self.columns,
        )

    def emit(
        self,
        unpack: Callable[[Value, Value, Value], None],
        multiply: Callable[[Value, Value, int], None],
        end: Callable[[], object] = lambda: None,
    ) -> str:
        """The whole function.

        Args:
            unpack: (row, place, address): writes a row into the panel.
            multiply: (rows of this block, first vector of tokens, vectors): writes results (rows,
                token lanes).
            end: what a thread does last.
        """
        e = self.e

        def one(item: Value) -> None:
            first = e.mul(item, self.block)
            count = e.min(self.block, e.sub(self.rows, first))
            e.loop(
                0,
                count,
                lambda row: unpack(
                    e.add(first, row), row, e.at(self.panel_at, e.mul(row, self.row_bytes))
                ),
            )
            vectors = e.ceil_div(self.tokens, self.lanes)
            whole = e.mul(e.div(vectors, self.vectors), self.vectors)

            def tokens(start: Value, count_: int) -> None:
                multiply(count, start, count_)
                for part in range(count_):
                    self.write(first, count, e.add(start, part), part)

            e.loop(0, whole, lambda start: tokens(start, self.vectors), step=self.vectors)
            if self.vectors > 1:
                e.loop(whole, vectors, lambda start: tokens(start, 1))

        next_items(e, e.ceil_div(self.rows, self.block), one)
        end()
        return e.finish()

    def write(self, first: Value, count: Value, tokens: Value, part: int) -> None:
        """Results of one vector of tokens, turned to a row a token, into ``out``."""
        e, lanes = self.e, self.lanes
        floats = vector(F32, lanes)
        begin = e.mul(tokens, lanes)
        valid = e.min(lanes, e.sub(self.tokens, begin))
        source = e.at(self.results, part * 4 * lanes)
        out = e.at(self.out, e.add(e.mul(begin, self.stride), e.mul(first, 4)))
        whole = e.mul(e.div(count, lanes), lanes)

        def put(token: Value, row: Value, value: Value) -> None:
            at = e.add(e.mul(token, self.stride), e.mul(row, 4))
            there = e.load(out, at, value.type)
            there = e.b.select(e.less(0, self.adds), there, e.const(value.type, 0.0))
            e.store(e.b.fadd(value, there), out, at)

        def square(row: Value) -> None:
            rows = [
                e.load(source, e.mul(e.add(row, i), self.result_bytes), floats)
                for i in range(lanes)
            ]
            for number, column in enumerate(e.transposed(rows)):
                e.store(column, self.square, number * 4 * lanes)
            e.loop(
                0,
                valid,
                lambda token: put(token, row, e.load(self.square, e.mul(token, 4 * lanes), floats)),
            )

        def single(row: Value) -> None:
            at = e.mul(row, self.result_bytes)
            e.loop(
                0,
                valid,
                lambda token: put(
                    token, row, e.load(source, e.add(at, e.mul(token, 4)), vector(F32, 1))
                ),
            )

        e.loop(0, whole, square, step=lanes)
        e.loop(whole, count, single)
