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
from edgellm.kernels.matmul.result_writer import ResultWriter


class MatmulFrame:
    """A product's arguments (``abi.MATMUL``), and the loops that every kind of it shares.

    A thread takes a block of rows. Its scratch holds

        results  (block_rows, TOKEN_VECTORS * lanes) float32: tokens in the lanes
        turned   (lanes, block_rows) float32: see ``ResultWriter``
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
        self.block_rows: Value = e.argument("block_rows")
        self.panel_row_bytes: Value = e.argument("panel_row_bytes")
        self.tokens: Value = e.tokens
        self.result_bytes: int = 4 * TOKEN_VECTORS * isa.lanes  # from a row's results to the next
        self.results: Value = e.scratch
        turned = e.at(self.results, e.mul(self.block_rows, self.result_bytes))
        self.writer: ResultWriter = ResultWriter(e, turned)
        self.panel_rows: Value = e.at(turned, e.mul(self.block_rows, 4 * self.lanes))
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
                    source = e.at(self.results, part * 4 * self.lanes)
                    self.writer.write(source, first_row, count, e.add(first_vector, part))

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
