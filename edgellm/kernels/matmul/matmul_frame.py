"""The frame of a product of many tokens: unpack rows once, multiply them with all tokens."""

# L tokens, O out_features, K in_features

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import MATMUL, TOKEN_VECTORS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.panel import Panel


class MatmulFrame:
    """A product's arguments (``abi.MATMUL``), and the loops that every kind of it shares.

    A thread takes a block of rows. Its scratch holds

        results  (block_rows, TOKEN_VECTORS * lanes) float32: tokens in the lanes
        turned   (lanes, block_rows) float32: results of a vector of tokens, a row a token
        panel    (block_rows, panel_row_bytes): the block's weights, unpacked
        factors  (block_rows, groups, 2) float32: scales and biases, of int8 products

    Activations are packed: (ceil(L / lanes), words of a row, lanes), see ``pack``.
    """

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e: Emitter = Emitter(isa, name, MATMUL)
        e = self.e
        self.isa = isa
        self.format = weight_format
        self.lanes: int = isa.lanes
        self.floats: Value = vector(F32, isa.lanes)
        self.activations: Value = e.address("activations")
        weight = e.address("weight")
        self.out_features: Value = e.argument("out_features")
        self.in_features: Value = e.argument("in_features")
        self.out: Value = e.address("out")
        self.out_stride: Value = e.argument("out_stride")
        self.add: Value = e.argument("add")
        self.block_rows: Value = e.argument("block_rows")
        self.panel_row_bytes: Value = e.argument("panel_row_bytes")
        self.tokens: Value = e.tokens
        self.result_bytes: int = 4 * TOKEN_VECTORS * isa.lanes  # from a row's results to the next
        self.results: Value = e.scratch
        self.turned: Value = e.at(self.results, e.mul(self.block_rows, self.result_bytes))
        self.panel_rows: Value = e.at(self.turned, e.mul(self.block_rows, 4 * self.lanes))
        self.panel: Panel = Panel(
            e,
            weight_format,
            weight=weight,
            scales=e.address("scales"),
            biases=e.address("biases"),
            in_features=self.in_features,
        )

    # --- to be filled in

    def unpack_row(self, row: Value, place: Value, target: Value) -> None:
        """Write row ``row`` of the weight, the block's ``place``-th, into the panel."""
        raise NotImplementedError

    def multiply(self, count: Value, first_vector: Value, vectors: int) -> None:
        """Write the results of the block's ``count`` rows and some vectors of tokens."""
        raise NotImplementedError

    def release(self) -> None:
        """Do what a thread does last."""

    # --- loops

    def emit(self) -> str:
        """Return the text of the function."""
        e = self.e

        def one_block(item: Value) -> None:
            first_row = e.mul(item, self.block_rows)
            count = e.min(self.block_rows, e.sub(self.out_features, first_row))

            def unpack(place: Value) -> None:
                row = e.add(first_row, place)
                self.unpack_row(row, place, self.panel_row(place))

            def multiply_and_write(first_vector: Value, vectors: int) -> None:
                self.multiply(count, first_vector, vectors)
                for part in range(vectors):
                    self._write(first_row, count, e.add(first_vector, part), part)

            e.loop(0, count, unpack)
            token_vectors = e.ceil_div(self.tokens, self.lanes)
            together = e.round_down(token_vectors, TOKEN_VECTORS)
            e.loop(
                0,
                together,
                lambda first: multiply_and_write(first, TOKEN_VECTORS),
                step=TOKEN_VECTORS,
            )
            e.loop(together, token_vectors, lambda first: multiply_and_write(first, 1))

        parallel_for(e, e.ceil_div(self.out_features, self.block_rows), one_block)
        self.release()
        return e.finish()

    def panel_row(self, place: Value) -> Value:
        """Return the address of the panel's ``place``-th row."""
        return self.e.at(self.panel_rows, self.e.mul(place, self.panel_row_bytes))

    def store_sums(self, first: Value, vectors: int, sums: Sequence[Value]) -> None:
        """Write sums, row by row with ``vectors`` of tokens each, into the block's results."""
        e = self.e
        for number, total in enumerate(sums):
            row, part = divmod(number, vectors)
            offset = e.add(e.mul(e.add(first, row), self.result_bytes), 4 * self.lanes * part)
            e.store(total, self.results, offset)

    def _write(self, first_row: Value, count: Value, token_vector: Value, part: int) -> None:
        """Write results of one vector of tokens, turned to a row a token, into ``out``."""
        e, lanes = self.e, self.lanes
        first_token = e.mul(token_vector, lanes)
        tokens = e.min(lanes, e.sub(self.tokens, first_token))
        source = e.at(self.results, part * 4 * lanes)
        out = e.at(self.out, e.add(e.mul(first_token, self.out_stride), e.mul(first_row, 4)))
        squares_end = e.round_down(count, lanes)
        row_bytes = e.mul(self.block_rows, 4)

        def one_square(row: Value) -> None:
            """Turn results (lanes rows, lanes tokens) to a vector of rows for each token."""
            rows = [
                e.load(source, e.mul(e.add(row, i), self.result_bytes), self.floats)
                for i in range(lanes)
            ]
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
