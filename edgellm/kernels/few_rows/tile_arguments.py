"""The arguments of the products of few tokens that are computed in tiles."""

# K in_features, n groups of a row

from __future__ import annotations

from edgellm.kernels.codegen.abi import INT8_MATVEC, TILE
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.values import F32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.tile_matmul import TILE_ROW_BYTES


class TileArguments:
    """A kernel's arguments, and what follows from them and the format of the weight."""

    def __init__(self, isa: Isa, name: str, weight_format: WeightFormat) -> None:
        self.e: Emitter = Emitter(isa, name, INT8_MATVEC)
        e = self.e
        self.format: WeightFormat = weight_format
        self.block: int = isa.block
        self.floats: Value = vector(F32, TILE)
        self.inputs: Value = e.address("activations")
        self.input_scales: Value = e.address("activation_scales")
        self.input_sums: Value = e.address("activation_sums")
        self.weight: Value = e.address("weight")
        self.scales: Value = e.address("scales")
        self.biases: Value = e.address("biases")
        self.out_features: Value = e.argument("out_features")
        self.groups: Value = e.argument("groups")
        self.out: Value = e.address("out")
        self.out_stride: Value = e.argument("out_stride")
        self.add: Value = e.argument("add")
        self.tokens: Value = e.tokens
        self.width: int = min(TILE_ROW_BYTES, weight_format.group)  # codes of a row in a tile
        self.group_tiles: int = weight_format.group // self.width
        self.group_bytes: int = weight_format.group * weight_format.bits // 8
        self.row_bytes: Value = e.mul(self.groups, self.group_bytes)
        self.scale_bytes: Value = e.mul(self.groups, weight_format.item_bytes)
        self.blocks_end: Value = e.round_down(self.groups, self.block)

    def rows_of_tile(self, first: Value, stop: Value) -> tuple[Value, Value, Value, Value]:
        """Return where the 16 rows from ``first`` on lie, and the 16 that are asked for meanwhile.

        Returns:
            The first of the 16 rows, which is an earlier one where fewer are left, and its address
            in the weight; how many rows further the next ones are (after the last ones 0: the same
            again), and their address.
        """
        e = self.e
        start = e.min(first, e.sub(self.out_features, TILE))
        weight = e.at(self.weight, e.mul(start, self.row_bytes))
        has_next = e.less(e.add(first, TILE), stop)
        ahead = e.b.select(has_next, e.index(TILE), e.index(0))
        next_weight = e.at(weight, e.mul(ahead, self.row_bytes))
        return start, weight, ahead, next_weight

    def prefetch_factors(self, start: Value, ahead: Value) -> None:
        """Ask for the scales and biases of the next rows."""
        e = self.e
        factors = e.mul(e.add(start, ahead), self.scale_bytes)
        e.prefetch_range((self.scales, self.biases), factors, e.mul(ahead, self.scale_bytes))
