"""The stages of ``tile_few``: a group is unpacked, multiplied in a tile, and added up.

A group's products are one tile; here with 4-bit codes and a group of 64::

    inputs, L tokens x 64 codes (bytes)        weight, 16 words of 4 codes x 16 rows
      token 0   a0 a2 a4 ... a62 a1 ... a63      word 0     c0 c2 c4 c6 of rows 0 .. 15
      ...                                        word 8     c1 c3 c5 c7
                                                 word 15
                          products, L tokens x 16 rows, 32-bit integers

A row of 4-bit codes has its even places first, as ``quantize`` orders activations for tiles
(``tile``). A group of 128 takes two products, one of 32 half a tile's width.
"""

# L tokens, K in_features, n groups of a row

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import FEW_PARTS, FEW_TOKENS, TILE
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.values import F32, I8, I32, I64, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.few_rows.tile_arguments import TileArguments
from edgellm.kernels.few_rows.turned import columns_of
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES, configure_tiles, tile

TILE_BYTES = TILE_ROW_BYTES * TILE

SLOTS = 2
"""Groups that are unpacked or multiplied at once."""

_CODES_BYTES = FEW_PARTS["codes"] // SLOTS
_INTS_BYTES = FEW_PARTS["ints"] // SLOTS
SUMS_BYTES = FEW_TOKENS[-1] * TILE_ROW_BYTES
_GROUP_FACTORS = 2 * TILE_ROW_BYTES
"""Bytes of a group's scales and biases: of 16 rows, float32."""


class FewStages(TileArguments):
    """The kernel's arguments and stages.

    Its scratch holds, for 16 rows of the weight (``abi.FEW_PARTS``)::

        codes    (SLOTS, tiles of a group, 16, 64) bytes
        ints     (SLOTS, L, 16 rows) 32-bit products
        sums     (block, L, 16 rows) float32 running sums
        results  (L, 16 rows) float32
        factors  (n, scales and biases, 16 rows) float32
        order    (n + SLOTS,) 64-bit numbers of the groups, as they are multiplied

    with memory for 8 tokens.
    """

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat, tokens: int) -> None:
        super().__init__(isa, name, weight_format)
        e = self.e
        self.most_tokens = tokens
        self.input_bytes: Value = e.mul(self.groups, weight_format.group)
        self.codes: Value = e.scratch
        self.ints: Value = e.at(self.codes, FEW_PARTS["codes"])
        self.sums: Value = e.at(self.ints, FEW_PARTS["ints"])
        self.results: Value = e.at(self.sums, FEW_PARTS["sums"])
        self.factors: Value = e.at(self.results, FEW_PARTS["results"])
        self.order: Value = e.at(self.factors, e.mul(self.groups, _GROUP_FACTORS))
        # two sets by turns, so that a product need not wait for the one before: products, inputs,
        # weights
        row_bytes = [TILE_ROW_BYTES, self.width, TILE_ROW_BYTES] * 2
        rows = [self.tokens, self.tokens, self.width // 4] * 2
        configure_tiles(e, row_bytes=row_bytes, rows=rows)

    def group_at(self, place: Value) -> Value:
        """Return the number of the group that is multiplied at a place."""
        return self.e.load(self.order, self.e.mul(place, 8), I64, align=8)

    def rows_from(self, base: Value, stride: Value, typ: Value) -> list[Value]:
        """Read a value from each of 16 rows, ``stride`` bytes apart."""
        e = self.e
        rows = []
        for _ in range(0, TILE, 4):
            rows += [e.load(base, e.mul(stride, row), typ) for row in range(4)]
            base = e.at(base, e.mul(stride, 4))
        return rows

    # --- scales and biases

    def load_factors(self, start: Value) -> None:
        """Write scales and biases of 16 rows as float32, those of a group side by side."""
        e, kind, item_bytes = self.e, self.format.kind, self.format.item_bytes

        def one_block(group: Value) -> None:
            for part, base in enumerate((self.scales, self.biases)):
                source = e.at(base, e.add(e.mul(start, self.scale_bytes), e.mul(group, item_bytes)))
                rows = [
                    load_floats(e, source, e.mul(self.scale_bytes, row), kind, self.block)
                    for row in range(TILE)
                ]
                for number, column in enumerate(columns_of(e, rows)):
                    target = e.at(self.factors, e.mul(e.add(group, number), _GROUP_FACTORS))
                    e.store(column, target, TILE_ROW_BYTES * part, align=64)

        def one_row(row: Value) -> None:
            for part, base in enumerate((self.scales, self.biases)):
                source = e.at(base, e.mul(e.add(start, row), self.scale_bytes))
                target = e.at(self.factors, e.add(e.mul(row, 4), TILE_ROW_BYTES * part))

                def one_group(group: Value, source: Value = source, target: Value = target) -> None:
                    number = load_floats(e, source, e.mul(group, item_bytes), kind, 1)
                    e.store(number, target, e.mul(group, _GROUP_FACTORS))

                e.loop(self.blocks_end, self.groups, one_group)

        e.loop(0, self.blocks_end, one_block, step=self.block)
        e.loop(0, TILE, one_row)

    # --- the three stages

    def unpack(self, weight: Value, group: Value, slot: Value) -> None:
        """Write codes of a group as words of four, the rows side by side.

        A tile of 4-bit codes has the low halves first.
        """
        e, bits = self.e, self.format.bits
        words = self.width * bits // 32
        at_once = min(words, 8)
        source = e.at(weight, e.mul(group, self.group_bytes))
        target = e.at(self.codes, e.mul(slot, _CODES_BYTES))
        for number in range(self.group_tiles):
            columns = []
            for first in range(0, words, at_once):
                begin = e.at(source, 4 * (words * number + first))
                rows = self.rows_from(begin, self.row_bytes, vector(I32, at_once))
                columns += columns_of(e, rows)
            if bits == 4:
                mask = e.const(vector(I32, TILE), 0x0F0F0F0F)
                shift = e.const(vector(I32, TILE), 4)
                low = [e.b.and_(column, mask) for column in columns]
                columns = low + [e.b.and_(e.b.lshr(column, shift), mask) for column in columns]
            for place, column in enumerate(columns):
                e.store(column, target, number * TILE_BYTES + place * TILE_ROW_BYTES, align=64)

    def multiply(self, group: Value, slot: Value, tiles: int) -> None:
        """Write a group's products, (tokens, 16 rows) integers, by one of the sets of tiles."""
        e = self.e
        total, left, right = (3 * tiles + number for number in range(3))
        codes = e.at(self.codes, e.mul(slot, _CODES_BYTES))
        tile(e, "tilezero", total)
        for number in range(self.group_tiles):
            inputs = e.add(e.mul(group, self.format.group), number * self.width)
            tile(e, "tileloadd64", left, e.at(self.inputs, inputs), self.input_bytes)
            own_codes = e.at(codes, number * TILE_BYTES)
            tile(e, "tileloadd64", right, own_codes, e.index(TILE_ROW_BYTES))
            tile(e, "tdpbsud", total, e.const(I8, left), e.const(I8, right))
        ints = e.at(self.ints, e.mul(slot, _INTS_BYTES))
        tile(e, "tilestored64", total, ints, e.index(TILE_ROW_BYTES))

    def add_group(self, group: Value, slot: Value, totals: Sequence[Value]) -> list[Value]:
        """Return sums of each token with a group's products added, as ``int8_matvec`` does it."""
        e = self.e
        factors = e.at(self.factors, e.mul(group, _GROUP_FACTORS))
        scale, bias = (
            e.load(factors, TILE_ROW_BYTES * part, self.floats, align=64) for part in range(2)
        )
        ints = e.at(self.ints, e.mul(slot, _INTS_BYTES))
        own_scales, own_sums = (
            e.at(base, e.mul(group, TILE_ROW_BYTES))
            for base in (self.input_scales, self.input_sums)
        )
        results = []
        for token, total in enumerate(totals):
            input_scale, input_sum = (
                e.broadcast(e.load(base, 4 * token, F32, align=4), TILE)
                for base in (own_scales, own_sums)
            )
            products = e.load(ints, token * TILE_ROW_BYTES, vector(I32, TILE), align=64)
            scales = e.b.fmul(scale, input_scale)
            biased = e.fma(bias, input_sum, total)
            results.append(e.fma(e.b.sitofp(products, self.floats), scales, biased))
        return results
