"""A block of keys and values as tiles of bfloat16, right factors of a product of tiles."""

# D head size

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.attention.kv_storage import HeadRows, KeyRange, head_rows
from edgellm.kernels.codegen.abi import TILE, TILE_NUMBERS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.values import BFLOAT, I16, I32, Value, vector
from edgellm.kernels.codegen.weight_format import ITEM_BYTES

TILE_BYTES = 1024


class TileBlocks:
    """Writes a block's keys and values as tiles.

    A row of a tile has 16 words, pairs of bfloat16: of the keys (16 keys, 32 features) two features
    of each key, of the values (32 keys, 16 features) two keys of each feature. Tiles lie as

        keys    (KEY_BLOCK / 16, D / 32)
        values  (KEY_BLOCK / 32, D / 16)

    Args:
        e: the kernel.
        kind: of the cache.
        head_dim: D, a multiple of 32.
        tiles: addresses of the keys' and of the values'.
        unpacked: where quantized keys and values become float32 before.
    """

    def __init__(
        self,
        e: Emitter,
        kind: str,
        head_dim: int,
        *,
        tiles: Sequence[Value],
        unpacked: Sequence[Value],
    ) -> None:
        self.e = e
        self.kind = kind
        self.head_dim = head_dim
        self.key_tiles: Value = tiles[0]
        self.value_tiles: Value = tiles[1]
        self.unpacked = unpacked

    def load(self, head: Value, block: Value, part: KeyRange) -> None:
        """Write the keys of a part of a block, which begins at ``block``.

        Places of the tiles that the part lacks get its nearest key: it is finite.
        """
        e = self.e
        keys, values = (
            self.rows(what, head, part, target)
            for what, target in zip(("key", "value"), self.unpacked, strict=True)
        )
        begin = e.round_down(e.sub(part.begin, block), TILE_NUMBERS)
        end = e.sub(part.end, block)

        def load_keys(place: Value) -> None:
            self.load_keys(keys, part, block, place)

        def load_values(place: Value) -> None:
            self.load_values(values, part, block, place)

        e.loop(begin, end, load_values, step=TILE_NUMBERS)
        # the products with keys take two tiles of them at once
        e.loop(begin, e.mul(e.ceil_div(end, TILE_NUMBERS), TILE_NUMBERS), load_keys, step=TILE)

    def rows(self, what: str, head: Value, part: KeyRange, target: Value) -> HeadRows:
        """Return where a head's keys or values are, codes unpacked to float32."""
        return head_rows(self.e, self.kind, what, head, part, head_dim=self.head_dim, target=target)

    def row(self, rows: HeadRows, position: Value, part: KeyRange) -> Value:
        """Return the address of a key or value, or of the part's nearest."""
        e = self.e
        position = e.min(e.max(position, part.begin), e.sub(part.end, 1))
        return e.at(rows.address, e.mul(position, rows.row_bytes))

    def features(self, rows: HeadRows, row: Value, first: Value) -> Value:
        """Return 32 features of a row, bfloat16."""
        e = self.e
        item_bytes = ITEM_BYTES[rows.kind]
        low, high = (
            load_floats(e, row, e.mul(e.add(first, half), item_bytes), rows.kind, TILE)
            for half in (0, TILE)
        )
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        return e.call(name, vector(BFLOAT, TILE_NUMBERS), [high, low])

    def load_keys(self, keys: HeadRows, part: KeyRange, block: Value, place: Value) -> None:
        """Write the tiles of 16 keys, ``place`` keys into the block."""
        e = self.e
        addresses = [self.row(keys, e.add(block, e.add(place, lane)), part) for lane in range(TILE)]
        tiles = e.at(self.key_tiles, e.mul(place, 2 * self.head_dim))

        def turn(first: Value) -> None:
            words = vector(I32, TILE)
            square = [e.b.bitcast(self.features(keys, row, first), words) for row in addresses]
            tile = e.at(tiles, e.mul(first, TILE_BYTES // TILE_NUMBERS))
            for i, pairs in enumerate(e.transpose(square)):
                e.store(pairs, tile, 64 * i)

        e.loop(0, self.head_dim, turn, step=TILE_NUMBERS)

    def load_values(self, values: HeadRows, part: KeyRange, block: Value, place: Value) -> None:
        """Write the tiles of 32 values, ``place`` keys into the block."""
        e = self.e
        tiles = e.at(self.value_tiles, e.mul(place, 2 * self.head_dim))
        numbers = vector(I16, TILE_NUMBERS)

        def one_pair(pair: Value) -> None:
            position = e.add(block, e.add(place, e.mul(pair, 2)))
            addresses = [self.row(values, e.add(position, i), part) for i in range(2)]
            for first in range(0, self.head_dim, TILE_NUMBERS):
                even, odd = (
                    e.b.bitcast(self.features(values, row, e.index(first)), numbers)
                    for row in addresses
                )
                for half in range(2):
                    lanes = range(TILE * half, TILE * half + TILE)
                    order = [lane + TILE_NUMBERS * side for lane in lanes for side in range(2)]
                    tile = TILE_BYTES * (first // TILE + half)
                    e.store(e.shuffle(even, order, odd), tiles, e.add(tile, e.mul(pair, 64)))

        e.loop(0, TILE, one_pair)
