"""Many tokens times a weight in bfloat16 tiles (AMX), summed in float32."""

from __future__ import annotations

from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import I8, VOID, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.matmul_frame import MatmulFrame

TILE_ROW_BYTES = 64
TILE_BYTES = 16 * TILE_ROW_BYTES

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


class _TileMatmul(MatmulFrame):
    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        super().__init__(isa, name, weight_format)
        configure_tiles(self.e)

    def panel_row(self, place: Value) -> Value:
        """Return where the panel's ``place``-th row begins: 16 rows are tiles side by side."""
        e = self.e
        tiles = e.mul(e.b.lshr(place, e.index(4)), e.mul(self.panel_row_bytes, 16))
        inside = e.mul(e.b.and_(place, e.index(15)), TILE_ROW_BYTES)
        return e.at(self.panel_rows, e.add(tiles, inside))

    def unpack_row(self, row: Value, place: Value, target: Value) -> None:
        self.panel.write_bf16(row, target)

    def release(self) -> None:
        release_tiles(self.e)

    def multiply(self, count: Value, first_vector: Value, vectors: int) -> None:
        """Sum 32 rows times some vectors of tokens in tiles, over all columns."""
        e = self.e
        input_bytes = e.mul(self.in_features, 2 * 16)  # from one vector of 16 tokens to the next
        inputs = e.at(self.activations, e.mul(first_vector, input_bytes))
        tiles_bytes = e.mul(self.panel_row_bytes, 16)  # of 16 rows
        stride = e.index(TILE_ROW_BYTES)

        def two_tiles_of_rows(first: Value) -> None:
            rows = [self.panel_row(first)]
            rows.append(e.at(rows[0], tiles_bytes))
            for number in range(2 * vectors):
                tile(e, "tilezero", number)

            def columns(offset: Value) -> None:
                # each tile is loaded just before the first product that needs it
                for row in range(2):
                    tile(e, "tileloadd64", _WEIGHTS + row, e.at(rows[row], offset), stride)
                    for part in range(vectors):
                        if row == 0:
                            source = e.at(inputs, e.add(e.mul(input_bytes, part), offset))
                            tile(e, "tileloadd64", _INPUTS + part, source, stride)
                        left = e.const(I8, _WEIGHTS + row)
                        right = e.const(I8, _INPUTS + part)
                        tile(e, "tdpbf16ps", row * vectors + part, left, right)

            e.loop(0, input_bytes, columns, step=TILE_BYTES)
            for number in range(2 * vectors):
                row, part = divmod(number, vectors)
                offset = e.mul(e.add(first, 16 * row), self.result_bytes)
                target = e.at(self.results, e.add(offset, TILE_ROW_BYTES * part))
                tile(e, "tilestored64", number, target, e.index(self.result_bytes))

        e.loop(0, count, two_tiles_of_rows, step=32)


def tile(e: Emitter, instruction: str, number: int, *arguments: Value) -> None:
    """Do an instruction on a tile."""
    e.call(f"llvm.x86.{instruction}", VOID, [e.const(I8, number), *arguments])


def release_tiles(e: Emitter) -> None:
    """Give the tiles back, so that the system need not save them."""
    e.call("llvm.x86.tilerelease", VOID, [])


def configure_tiles(e: Emitter, *, inner_bytes: int = TILE_ROW_BYTES) -> None:
    """Set up eight tiles of 16 rows of 64 bytes.

    Where ``inner_bytes`` is less, tiles 1 and 4 have rows of that, and 2 and 5 as many words: they
    are the factors of products into tiles 0 and 3.
    """
    row_bytes = [TILE_ROW_BYTES] * 8
    rows = [16] * 8
    for left, right in ((1, 2), (4, 5)):
        row_bytes[left] = inner_bytes
        rows[right] = inner_bytes // 4
    # Intel's manual, LDTILECFG: byte 0 palette 1; from 16 on, row bytes of 16 tiles (two bytes
    # each); from 48 on, their rows. Tiles 8 to 15 do not exist yet.
    setting = [1, *[0] * 15]
    for width in row_bytes:
        setting += [width, 0]
    setting += [*[0] * 16, *rows, *[0] * 8]
    address = e.b.alloca(vector(I8, 64))
    address.align = 64
    e.b.store(e.const_lanes(I8, setting), address)
    e.call("llvm.x86.ldtilecfg", VOID, [address])
