"""Rows of a weight, unpacked once for a block of tokens."""

# K in_features, n groups of a row

from __future__ import annotations

from edgellm.kernels.codegen.abi import TILE_NUMBERS
from edgellm.kernels.codegen.dot import as_weights
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.unpack import load_codes, load_float, load_floats, to_bf16
from edgellm.kernels.codegen.values import F32, I8, I16, I32, Value, vector
from edgellm.kernels.codegen.weight_format import WeightFormat

_BYTES_AT_ONCE = 16
_TILE_BYTES = 1024


class Panel:
    """Unpacks rows of a weight into float32, bfloat16, or bytes.

    Args:
        e: the kernel.
        weight_format: how the weight is stored.
        weight: address of (O, K) codes or numbers.
        scales: address of (O, n).
        biases: address of (O, n).
        in_features: K.
    """

    def __init__(
        self,
        e: Emitter,
        weight_format: WeightFormat,
        *,
        weight: Value,
        scales: Value,
        biases: Value,
        in_features: Value,
    ) -> None:
        self.e = e
        self.format = weight_format
        self.weight = weight
        self.scales = scales
        self.biases = biases
        self.in_features = in_features
        # bits of a row, in bytes
        self.row_bytes: Value = e.b.lshr(e.mul(in_features, weight_format.weight_bits), e.index(3))
        self.groups: Value = e.index(0)
        if not weight_format.dense:
            self.groups = e.div(in_features, weight_format.group)

    def scale_and_bias(self, row: Value, group: Value) -> tuple[Value, Value]:
        """Return scale and bias of a group."""
        e, kind = self.e, self.format.kind
        offset = e.mul(e.add(e.mul(row, self.groups), group), self.format.item_bytes)
        scale = load_float(e, self.scales, offset, kind)
        return scale, load_float(e, self.biases, offset, kind)

    # --- numbers

    def floats(self, row: Value, column: Value, lanes: int) -> Value:
        """Return ``lanes`` numbers of a row in float32, all of one group, a multiple of 8."""
        e = self.e
        source = e.at(self.weight, e.mul(row, self.row_bytes))
        if self.format.dense:
            offset = e.mul(column, self.format.item_bytes)
            return load_floats(e, source, offset, self.format.kind, lanes)
        scale, bias = self.scale_and_bias(row, e.div(column, self.format.group))
        return self._dequantize(source, column, scale, bias, lanes)

    def write_float32(self, row: Value, target: Value) -> None:
        """Write a row as (K,) float32."""
        e, kind = self.e, self.format.kind
        source = e.at(self.weight, e.mul(row, self.row_bytes))

        def convert(place: Value, lanes: int) -> None:
            offset = e.mul(place, self.format.item_bytes)
            e.store(load_floats(e, source, offset, kind, lanes), target, e.mul(place, 4))

        def dequantize_group(group: Value) -> None:
            first = e.mul(group, self.format.group)
            scale, bias = self.scale_and_bias(row, group)
            self._dequantize_group(source, target, first, scale, bias)

        if self.format.dense:
            e.sweep(self.in_features, convert)
        else:
            e.loop(0, self.groups, dequantize_group)

    def write_tile_group(self, row: Value, group: Value, target: Value) -> None:
        """Write a group of a row as bfloat16: 64 bytes to each tile of a row of tiles.

        A group of plain numbers is ``TILE_NUMBERS`` of them, without a scale.

        Args:
            row: of the weight.
            group: of the row.
            target: where the row's column 0 would be.
        """
        e = self.e
        source = e.at(self.weight, e.mul(row, self.row_bytes))
        if self.format.dense:
            column = e.mul(group, TILE_NUMBERS)
            numbers = e.load(source, e.mul(column, 2), vector(I16, TILE_NUMBERS))
            e.store(numbers, target, e.mul(group, _TILE_BYTES))
            return
        first = e.mul(group, self.format.group)
        target = e.at(target, e.mul(group, self.format.group // TILE_NUMBERS * _TILE_BYTES))
        scale, bias = self.scale_and_bias(row, group)
        write = self._dequantize_to_tiles
        if self.format.bits == 4:
            write = self._look_up_group
        write(source, target, first, scale, bias)

    def _dequantize_group(
        self, source: Value, target: Value, first: Value, scale: Value, bias: Value
    ) -> None:
        """Write ``scale * code + bias`` for each code of a group, as float32."""
        e = self.e
        lanes = max(8, e.isa.lanes)

        def some_codes(place: Value) -> None:
            column = e.add(first, place)
            numbers = self._dequantize(source, column, scale, bias, lanes)
            e.store(numbers, target, e.mul(column, 4))

        e.loop(0, self.format.group, some_codes, step=lanes)

    def _dequantize_to_tiles(
        self, source: Value, target: Value, first: Value, scale: Value, bias: Value
    ) -> None:
        """Write ``scale * code + bias`` for each code of a group, as bfloat16."""
        e = self.e
        for start in range(0, self.format.group, TILE_NUMBERS):
            numbers = self._dequantize(source, e.add(first, start), scale, bias, TILE_NUMBERS)
            e.store(to_bf16(e, numbers), target, start // TILE_NUMBERS * _TILE_BYTES)

    def _dequantize(
        self, source: Value, column: Value, scale: Value, bias: Value, lanes: int
    ) -> Value:
        """Return some weights of a row as float32."""
        e, bits = self.e, self.format.bits
        offset = e.b.lshr(e.mul(column, bits), e.index(3))
        codes = load_codes(e, source, offset, bits, lanes)
        numbers = e.b.uitofp(codes, vector(F32, lanes))
        return e.fma(numbers, e.broadcast(scale, lanes), e.broadcast(bias, lanes))

    def _look_up_group(
        self, source: Value, target: Value, first: Value, scale: Value, bias: Value
    ) -> None:
        """Write 4-bit codes of a group as bfloat16.

        A group has only 16 different weights, so each is rounded once and then looked up.
        """
        e = self.e
        words = vector(I32, 16)
        codes = e.const_lanes(F32, range(16))
        table = to_bf16(e, e.fma(codes, e.broadcast(scale, 16), e.broadcast(bias, 16)))
        table = e.shuffle(table, [lane % 16 for lane in range(TILE_NUMBERS)])
        for start in range(0, self.format.group, TILE_NUMBERS):
            column = e.add(first, start)
            offset = e.b.lshr(column, e.index(1))
            packed = e.b.zext(e.load(source, offset, vector(I8, 16)), words)
            # 000000hl -> 000h000l: the two codes of a byte in the two halves of a word
            pairs = e.b.or_(packed, e.b.shl(packed, e.const(words, 12)))
            pairs = e.b.and_(pairs, e.const(words, 0x000F000F))
            places = e.b.bitcast(pairs, vector(I16, TILE_NUMBERS))
            weights = e.call("llvm.x86.avx512.permvar.hi.512", table.type, [table, places])
            e.store(weights, target, start // TILE_NUMBERS * _TILE_BYTES)

    # --- bytes

    def write_bytes(self, row: Value, target: Value) -> None:
        """Write a row's codes as (K,) bytes for ``dot``; 4-bit ones in the order ``split``.

        That is the low halves of all bytes, then the high ones, as ``quantize`` orders activations.
        """
        e = self.e
        source = e.at(self.weight, e.mul(row, self.row_bytes))
        byte_lanes = vector(I8, _BYTES_AT_ONCE)
        half_row = e.b.lshr(self.in_features, e.index(1))

        def some_bytes(place: Value) -> None:
            packed = e.load(source, place, byte_lanes)
            # groups are multiples of 32, so a row of 4-bit codes is one of 16 bytes
            if self.format.bits == 8:
                e.store(as_weights(e, packed, 8), target, place)
                return
            e.store(e.b.and_(packed, e.const(byte_lanes, 15)), target, place)
            high = e.b.lshr(packed, e.const(byte_lanes, 4))
            e.store(high, target, e.add(half_row, place))

        e.loop(0, self.row_bytes, some_bytes, step=_BYTES_AT_ONCE)
