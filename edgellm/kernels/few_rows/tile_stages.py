"""The stages of ``tile_matvec``: a group is unpacked, multiplied in a tile, and added up.

A group's products are one tile; here with 4-bit codes and a group of 64::

    weight, 16 rows x 64 codes (bytes)        inputs, 16 words of 4 codes x 16 tokens
      row 0   c0 c2 c4 ... c62 c1 ... c63       word 0    tokens 0 .. 15
      ...                                       ...
      row 15                                    word 15
                          products, 16 rows x 16 tokens, 32-bit integers

A row of 4-bit codes has its even places first, as ``quantize`` orders activations for tiles
(``tile``). A group of 128 takes two products, one of 32 half a tile's width.
"""

# K in_features, n groups of a row

from __future__ import annotations

from functools import partial

from edgellm.kernels.codegen.abi import TILE, TILE_GROUPS, TILE_PARTS
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.values import F32, I8, I16, I32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.few_rows.tile_arguments import TileArguments
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES, tile

TILE_BYTES = TILE_ROW_BYTES * TILE

_CODES_BYTES = TILE_PARTS["codes"] // TILE_GROUPS
"""Scratch for the unpacked codes of a group."""


class TileStages(TileArguments):
    """The kernel's arguments and stages.

    Its scratch holds, for 16 rows of the weight (``abi.TILE_PARTS``)::

        codes    (TILE_GROUPS, tiles of a group, 16, 64) bytes
        ints     (TILE_GROUPS, 16, 16) 32-bit products of the groups under way
        sums     (block, 16, 16) float32 running sums
        results  (16, 16) float32, a row a row of the weight, then a row a token
        factors  (blocks of groups, scales and biases, 16, block) float32

    A group under way has slot ``group % TILE_GROUPS``.
    """

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        super().__init__(isa, name, weight_format)
        e = self.e
        self.codes: Value = e.scratch
        self.ints: Value = e.at(self.codes, TILE_PARTS["codes"])
        self.sums: Value = e.at(self.ints, TILE_PARTS["ints"])
        self.results: Value = e.at(self.sums, TILE_PARTS["sums"])
        self.factors: Value = e.at(self.results, TILE_PARTS["results"])

    # --- scales and biases

    def load_factors(self, start: Value) -> None:
        """Write scales and biases of 16 rows as float32; those of a group lie a fixed way apart."""
        e, kind, item_bytes = self.e, self.format.kind, self.format.item_bytes

        def one_row(row: Value) -> None:
            begin = e.mul(e.add(start, row), self.scale_bytes)
            for part, base in enumerate((self.scales, self.biases)):
                source = e.at(base, begin)
                row_offset = e.mul(e.add(row, part * TILE), 4 * self.block)
                target = e.at(self.factors, row_offset)

                def convert(
                    group: Value, lanes: int, source: Value = source, target: Value = target
                ) -> None:
                    numbers = load_floats(e, source, e.mul(group, item_bytes), kind, lanes)
                    e.store(numbers, target, self.factor_offset(group))

                one_block = partial(convert, lanes=self.block)
                e.loop(0, self.blocks_end, one_block, step=self.block)
                e.loop(self.blocks_end, self.groups, partial(convert, lanes=1))

        e.loop(0, TILE, one_row)

    def factor_offset(self, group: Value) -> Value:
        """Return the bytes from the factors' begin to the first row's scale of a group."""
        e, block = self.e, self.block
        block_offset = e.mul(e.div(group, block), 2 * 4 * TILE * block)
        return e.add(block_offset, e.mul(e.rem(group, block), 4))

    # --- the three stages

    def unpack(self, weight: Value, group: Value, slot: int) -> None:
        """Write 4-bit codes of a group as bytes: in each tile the low halves come first."""
        if self.format.bits == 8:
            return
        e = self.e
        half = self.width // 2
        pairs = vector(I16, half)
        # the bytes twice: as they are, and shifted so that the high halves are low
        shifts = e.const_lanes(I16, [0] * (half // 2) + [4] * (half // 2))
        for row in range(TILE):
            row_offset = e.mul(self.row_bytes, row)
            source = e.at(weight, e.add(row_offset, e.mul(group, self.group_bytes)))
            for number in range(self.group_tiles):
                packed = e.load(source, number * half, vector(I8, half))
                twice = e.b.bitcast(e.concat([packed, packed]), pairs)
                shifted = e.b.bitcast(e.b.lshr(twice, shifts), vector(I8, 2 * half))
                codes = e.b.and_(shifted, e.const(shifted.type, 15))
                offset = slot * _CODES_BYTES + number * TILE_BYTES + row * TILE_ROW_BYTES
                e.store(codes, self.codes, offset)

    def multiply_group(self, weight: Value, group: Value, slot: int) -> None:
        """Write a group's products, (16 rows, 16 tokens) integers."""
        e = self.e
        # two sets of tiles by turns, so that a product need not wait for the one before
        total, left, right = (3 * (slot % 2) + number for number in range(3))
        tile(e, "tilezero", total)
        for number in range(self.group_tiles):
            if self.format.bits == 8:
                offset = e.add(e.mul(group, self.group_bytes), number * self.width)
                tile(e, "tileloadd64", left, e.at(weight, offset), self.row_bytes)
            else:
                codes = e.at(self.codes, slot * _CODES_BYTES + number * TILE_BYTES)
                tile(e, "tileloadd64", left, codes, e.index(TILE_ROW_BYTES))
            # a code of 16 tokens takes 16 bytes
            group_offset = e.mul(group, self.format.group * TILE)
            inputs = e.at(self.inputs, e.add(group_offset, number * self.width * TILE))
            tile(e, "tileloadd64", right, inputs, e.index(TILE_ROW_BYTES))
            tile(e, "tdpbusd", total, e.const(I8, left), e.const(I8, right))
        ints = e.at(self.ints, slot * TILE_BYTES)
        tile(e, "tilestored64", total, ints, e.index(TILE_ROW_BYTES))

    def add_group(self, group: Value, slot: int, sums: Value) -> None:
        """Add a group's products to sums (16 rows, 16 tokens), as ``int8_matvec`` adds them."""
        e = self.e
        input_scale, input_sum = (
            e.load(base, e.mul(group, TILE_ROW_BYTES), self.floats)
            for base in (self.input_scales, self.input_sums)
        )
        factors = e.at(self.factors, self.factor_offset(group))
        for row in range(TILE):
            scale, bias = (
                e.broadcast(
                    e.load(factors, 4 * self.block * (part * TILE + row), F32, align=4), TILE
                )
                for part in (0, 1)
            )
            total = e.load(sums, row * TILE_ROW_BYTES, self.floats)
            ints_offset = slot * TILE_BYTES + row * TILE_ROW_BYTES
            ints = e.load(self.ints, ints_offset, vector(I32, TILE))
            exact = e.b.sitofp(ints, self.floats)
            scales = e.b.fmul(scale, input_scale)
            total = e.fma(exact, scales, e.fma(bias, input_sum, total))
            e.store(total, sums, row * TILE_ROW_BYTES)
