"""Many tokens times a weight in bfloat16 tiles (AMX), summed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgellm.kernels.codegen.abi import MATMUL, TILE, TILE_NUMBERS, TOKEN_VECTORS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.strips import STRIP_BYTES, STRIP_COLUMNS, STRIP_ROWS
from edgellm.kernels.codegen.values import I8, I32, VOID, Value
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.panel import Panel
from edgellm.kernels.matmul.result_writer import ResultWriter

TILE_ROW_BYTES = 64
TILE_BYTES = TILE * TILE_ROW_BYTES

_RESULT_BYTES = TOKEN_VECTORS * TILE_ROW_BYTES
"""From a row's results to the next row's."""

_WEIGHTS = 4
_INPUTS = 6
"""The first tiles of each; results begin at 0."""


def emit_tile_matmul(isa: Isa, name: str, weight_format: WeightFormat) -> str:
    """Emit ``tile_matmul``; activations are packed pairs of bfloat16, columns a multiple of 32.

    Two tiles of rows by two of tokens; a tile has 16 rows of 64 bytes:

        tiles 6, 7                   16 pairs of columns x 16 tokens, pairs of bfloat16
        tiles 4, 5   tiles 0 - 3     16 rows x 32 columns, bfloat16; 16 rows x 16 tokens, float32

    The arguments are those of ``abi.MATMUL``.
    """
    return _TileMatmul(isa, name, weight_format).emit()


class _Strip(NamedTuple):
    """Where a strip is in the weight, and its tiles in the scratch.

    Attributes:
        first_row: the block's.
        row: the strip's first one in the block.
        column: its first one.
        columns: how many, a multiple of 32.
        memory: the address of its tiles.
    """

    first_row: Value
    row: Value
    column: Value
    columns: Value
    memory: Value


class _TileMatmul:
    """A thread takes ``block_rows`` rows, and of these a *strip* at once: 32 rows x 256 columns.

    A strip is multiplied with all tokens while the next one is unpacked: tiles and vectors are
    units of their own, so that the processor does both at the same time. The thread's scratch holds

        strips   (2, 2, 8 tiles, 16, 32) bfloat16: the strip that is multiplied, and the next one
        turned   (lanes, block_rows) float32: see ``ResultWriter``
        results  (ceil(L / 32), block_rows, 32) float32
    """

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e: Emitter = Emitter(isa, name, MATMUL)
        e = self.e
        self.in_features: Value = e.argument("in_features")
        self.out_features: Value = e.argument("out_features")
        self.block_rows: Value = e.argument("block_rows")
        self.activations: Value = e.address("activations")
        self.strips: Value = e.scratch
        turned = e.at(self.strips, 2 * STRIP_BYTES)
        self.results: Value = e.at(turned, e.mul(self.block_rows, 4 * TILE))
        self.writer: ResultWriter = ResultWriter(e, turned)
        self.panel: Panel = Panel(
            e,
            weight_format,
            weight=e.address("weight"),
            scales=e.address("scales"),
            biases=e.address("biases"),
            in_features=self.in_features,
        )
        self.group: int = weight_format.group or TILE_NUMBERS
        self.token_vectors: Value = e.ceil_div(e.tokens, TILE)
        self.pairs: Value = e.div(self.token_vectors, 2)
        self.pair_bytes: Value = e.mul(self.block_rows, _RESULT_BYTES)
        configure_tiles(e)

    def emit(self) -> str:
        """Return the text of the function."""
        e = self.e

        def one_block(item: Value) -> None:
            first_row = e.mul(item, self.block_rows)
            count = e.min(self.block_rows, e.sub(self.out_features, first_row))
            self.multiply(first_row, count)

            def write(token_vector: Value) -> None:
                pair = e.mul(e.div(token_vector, 2), self.pair_bytes)
                part = e.mul(e.rem(token_vector, 2), TILE_ROW_BYTES)
                source = e.at(self.results, e.add(pair, part))
                self.writer.write(source, first_row, count, token_vector)

            e.loop(0, self.token_vectors, write)

        parallel_for(e, e.ceil_div(self.out_features, self.block_rows), one_block)
        release_tiles(e)
        return e.finish()

    def multiply(self, first_row: Value, count: Value) -> None:
        """Write the block's results."""
        e = self.e
        strips = e.ceil_div(count, STRIP_ROWS)  # of the same columns
        number_of_strips = e.mul(strips, e.ceil_div(self.in_features, STRIP_COLUMNS))

        def strip(number: Value) -> _Strip:
            column = e.mul(e.div(number, strips), STRIP_COLUMNS)
            columns = e.min(STRIP_COLUMNS, e.sub(self.in_features, column))
            row = e.mul(e.rem(number, strips), STRIP_ROWS)
            memory = e.at(self.strips, e.mul(e.rem(number, 2), STRIP_BYTES))
            return _Strip(first_row, row, column, columns, memory)

        def one_strip(number: Value) -> None:
            following = strip(e.add(number, 1))
            is_last = e.less(number_of_strips, e.add(number, 2))
            rows = e.b.select(is_last, e.index(0), e.index(STRIP_ROWS))
            self.multiply_strip(strip(number), following, rows)

        first = strip(e.index(0))
        e.loop(0, STRIP_ROWS, lambda row: self.unpack(first, row))
        e.loop(0, number_of_strips, one_strip)

    def unpack(self, strip: _Strip, place: Value) -> None:
        """Write a row of a strip into its tiles."""
        e = self.e
        tiles = e.mul(e.div(place, TILE), STRIP_BYTES // 2)
        target = e.at(strip.memory, e.add(tiles, e.mul(e.rem(place, TILE), TILE_ROW_BYTES)))
        target = e.at(target, e.mul(e.sub(0, strip.column), TILE_BYTES // TILE_NUMBERS))
        # rows and groups past the last one repeat it; their results are never written
        row = e.add(strip.first_row, e.add(strip.row, place))
        row = e.min(row, e.sub(self.out_features, 1))
        first = e.div(strip.column, self.group)
        last = e.sub(e.div(self.in_features, self.group), 1)
        for number in range(STRIP_COLUMNS // self.group):
            self.panel.write_tile_group(row, e.min(e.add(first, number), last), target)

    def multiply_strip(self, strip: _Strip, following: _Strip, rows: Value) -> None:
        """Add a strip's products to the results; unpack rows of the strip that follows."""
        e = self.e
        input_bytes = e.mul(self.in_features, 2 * TILE)  # from one vector of tokens to the next
        first_input = e.at(self.activations, e.mul(strip.column, 2 * TILE))
        rounds = e.mul(e.ceil_div(self.token_vectors, 2), e.div(strip.columns, TILE_NUMBERS))
        rows_each = e.ceil_div(rows, rounds)  # unpacked beside each round of products
        is_first = e.b.icmp_unsigned("==", strip.column, e.index(0))
        stride = e.index(TILE_ROW_BYTES)

        def multiply(pair: Value, unpacked: Value, vectors: int) -> Sequence[Value]:
            inputs = e.at(first_input, e.mul(pair, e.mul(input_bytes, 2)))
            offset = e.add(e.mul(pair, self.pair_bytes), e.mul(strip.row, _RESULT_BYTES))
            results = e.at(self.results, offset)

            def each_result(instruction: str) -> None:
                for number in range(2 * vectors):
                    row, part = divmod(number, vectors)
                    place = e.at(results, TILE * row * _RESULT_BYTES + TILE_ROW_BYTES * part)
                    tile(e, instruction, number, place, e.index(_RESULT_BYTES))

            def zero() -> None:
                for number in range(2 * vectors):
                    tile(e, "tilezero", number)

            def one_round(place: Value, unpacked: Value) -> Sequence[Value]:
                stop = e.min(e.add(unpacked, rows_each), rows)
                e.loop(unpacked, stop, lambda row: self.unpack(following, row))
                # each tile is loaded just before the first product that needs it
                for row in range(2):
                    weights = e.at(strip.memory, e.add(place, row * STRIP_BYTES // 2))
                    tile(e, "tileloadd64", _WEIGHTS + row, weights, stride)
                    for part in range(vectors):
                        if row == 0:
                            source = e.at(inputs, e.add(e.mul(input_bytes, part), place))
                            tile(e, "tileloadd64", _INPUTS + part, source, stride)
                        left = e.const(I8, _WEIGHTS + row)
                        right = e.const(I8, _INPUTS + part)
                        tile(e, "tdpbf16ps", row * vectors + part, left, right)
                return [stop]

            e.when(is_first, zero)
            e.when(e.b.not_(is_first), lambda: each_result("tileloadd64"))
            end = e.mul(strip.columns, TILE_BYTES // TILE_NUMBERS)
            done = e.loop(0, end, one_round, [unpacked], step=TILE_BYTES)
            each_result("tilestored64")
            return done

        def two_vectors(pair: Value, unpacked: Value) -> Sequence[Value]:
            return multiply(pair, unpacked, TOKEN_VECTORS)

        def one_vector(pair: Value, unpacked: Value) -> Sequence[Value]:
            return multiply(pair, unpacked, 1)

        unpacked = e.loop(0, self.pairs, two_vectors, [e.index(0)])
        # the last vector where their number is odd
        end = e.ceil_div(self.token_vectors, 2)
        e.loop(self.pairs, end, one_vector, unpacked)


def tile(e: Emitter, instruction: str, number: int, *arguments: Value) -> None:
    """Do an instruction on a tile."""
    e.call(f"llvm.x86.{instruction}", VOID, [e.const(I8, number), *arguments])


def release_tiles(e: Emitter) -> None:
    """Give the tiles back, so that the system need not save them."""
    e.call("llvm.x86.tilerelease", VOID, [])


def configure_tiles(
    e: Emitter,
    *,
    row_bytes: Sequence[int] = (TILE_ROW_BYTES,) * 8,
    rows: Sequence[int | Value] = (TILE,) * 8,
) -> None:
    """Set up eight tiles, of 16 rows of 64 bytes each unless it is said otherwise."""
    # Intel's manual, LDTILECFG: byte 0 palette 1; from 16 on, row bytes of 16 tiles (two bytes
    # each); from 48 on, their rows. Tiles 8 to 15 do not exist yet.
    setting = [1, *[0] * 15]
    for width in row_bytes:
        setting += [width, 0]
    setting += [0] * (64 - len(setting))
    settings = e.const_lanes(I8, setting)
    for number, count in enumerate(rows, 48):
        own = e.b.trunc(e.index(count), I8)
        settings = e.b.insert_element(settings, own, e.const(I32, number))
    address = e.b.alloca(settings.type)
    address.align = 64
    e.b.store(settings, address)
    e.call("llvm.x86.ldtilecfg", VOID, [address])
