"""Keys turned, so that their features are columns: a vector has one feature of several keys."""

# D head size

from __future__ import annotations

from edgellm.kernels.attention.kv_storage import HeadRows, KeyRange
from edgellm.kernels.codegen.abi import KEY_BLOCK
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.unpack import f16_pairs, load_float, load_floats
from edgellm.kernels.codegen.values import F32, I8, I32, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES

KEY_VECTORS = 2
"""Vectors of keys that are turned, and scored, side by side."""


class KeyColumns:
    """A strip of keys, (D, KEY_VECTORS * lanes) float32; KEY_BLOCK is a multiple of a strip.

    Args:
        e: the kernel.
        head_dim: D.
        address: where it is.
        edge: address of (lanes, D) float32, for the keys at either end of a part.
    """

    def __init__(self, e: Emitter, head_dim: int, *, address: Value, edge: Value) -> None:
        self.e = e
        self.head_dim = head_dim
        self.address = address
        self.edge = edge
        self.lanes: int = e.isa.lanes
        self.strip: int = KEY_VECTORS * e.isa.lanes
        self.floats: Value = vector(F32, e.isa.lanes)
        self.words: Value = vector(I32, e.isa.lanes)

    def turn(self, keys: HeadRows, first: Value, part: KeyRange) -> None:
        """Write a strip of keys as columns; where the part has none, its nearest key stands in."""
        e, lanes = self.e, self.lanes
        item_bytes = ITEM_BYTES[keys.kind]
        last = e.sub(part.end, 1)

        def one_vector(place: Value) -> None:
            begin = e.add(first, place)
            source = e.at(keys.address, e.mul(begin, keys.row_bytes))
            e.prefetch(source, 0, lanes * keys.row_bytes, ahead=KEY_BLOCK * keys.row_bytes)
            is_cut = e.b.or_(e.less(begin, part.begin), e.less(part.end, e.add(begin, lanes)))

            def copy_key(lane: Value) -> None:
                position = e.min(e.max(e.add(begin, lane), part.begin), last)
                row = e.at(keys.address, e.mul(position, keys.row_bytes))
                target = e.at(self.edge, e.mul(lane, keys.row_bytes))
                for start, count in feature_pieces(item_bytes * self.head_dim, 64):
                    e.store(e.load(row, start, vector(I8, count)), target, start)

            e.when(is_cut, lambda: e.loop(0, lanes, copy_key))
            source = e.b.select(is_cut, self.edge, source)

            def offsets(feature: Value) -> list[Value]:
                begin = e.mul(feature, item_bytes)
                return [e.add(begin, lane * keys.row_bytes) for lane in range(lanes)]

            def turn_pairs(feature: Value) -> None:
                square = [e.load(source, offset, self.words) for offset in offsets(feature)]
                for i, pairs in enumerate(e.transpose(square)):
                    for half, column in enumerate(f16_pairs(e, pairs)):
                        self.store(column, e.add(feature, 2 * i + half), place)

            def turn_square(feature: Value) -> None:
                square = [
                    load_floats(e, source, offset, keys.kind, lanes) for offset in offsets(feature)
                ]
                for i, column in enumerate(e.transpose(square)):
                    self.store(column, e.add(feature, i), place)

            def turn_feature(feature: Value) -> None:
                column = e.const(self.floats, 0.0)
                for lane, offset in enumerate(offsets(feature)):
                    number = load_float(e, source, offset, keys.kind)
                    column = e.b.insert_element(column, number, e.const(I32, lane))
                self.store(column, feature, place)

            done = 0
            for wide, turn in ((2 * lanes, turn_pairs), (lanes, turn_square), (1, turn_feature)):
                # two numbers to a word make half the moves
                if wide > lanes and keys.kind != "f16":
                    continue
                end = done + (self.head_dim - done) // wide * wide
                if end > done:
                    e.loop(done, end, turn, step=wide)
                done = end

        e.loop(0, self.strip, one_vector, step=lanes)

    def store(self, column: Value, feature: Value, place: Value) -> None:
        """Write one feature of a vector of keys."""
        e = self.e
        offset = e.add(e.mul(feature, self.strip), place)
        e.store(column, self.address, e.mul(offset, 4))


def feature_pieces(head_dim: int, lanes: int) -> list[tuple[int, int]]:
    """Return a head's features as vectors, (first, how many): whole ones, then smaller ones."""
    pieces = []
    first = 0
    while first < head_dim:
        while first + lanes > head_dim:
            lanes //= 2
        pieces.append((first, lanes))
        first += lanes
    return pieces
