"""Attention of prompts in bfloat16 tiles (AMX); scores, softmax and sums are float32.

A thread takes some rows of a key head, 32 of them at a time, and all keys, a block at a time. Keys
and values become tiles once for all these rows. Weights are powers of two, since queries are scaled
by log2(e), and are rounded to bfloat16; their sums are those of the rounded ones.

A row's result does not depend on the rows beside it: blocks of keys begin at fixed positions, and a
key that a row may not see adds exactly nothing. So keys that none of 32 rows sees are left out.
"""

# L tokens, H query heads, G key/value heads, D head size; a row is one query of one token, and the
# L * H / G rows of a key head are numbered token by token

from __future__ import annotations

import math
from typing import NamedTuple

from edgellm.kernels.attention.kv_storage import KeyRange
from edgellm.kernels.attention.online_softmax import LOWEST
from edgellm.kernels.attention.scratch import TILE_ROWS, tile_attention_parts
from edgellm.kernels.attention.tile_blocks import TileBlocks
from edgellm.kernels.attention.tile_softmax import TileSoftmax
from edgellm.kernels.attention.tile_weights import LOG2_E, TileRows
from edgellm.kernels.codegen.abi import ATTENTION, KEY_BLOCK
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.unpack import to_bf16
from edgellm.kernels.codegen.values import F32, I32, Value, vector
from edgellm.kernels.matmul.tile_matmul import configure_tiles, release_tiles

_LANES = 16


class _Item(NamedTuple):
    """The work of one thread at a time: a key head, and some of its rows."""

    head: Value
    first_row: Value
    rows: Value


def emit_tile_attention(isa: Isa, name: str, kind: str, head_dim: int) -> str:
    """Emit ``tile_attention``: for each query the one partial result of all its keys.

    Arguments and results are those of ``attention``; ``head_dim`` is a multiple of 32.
    """
    return _TileAttention(isa, name, kind, head_dim).emit()


class _TileAttention:
    """The kernel; its scratch holds the parts of ``abi.tile_attention_parts``."""

    def __init__(self, isa: Isa, name: str, kind: str, head_dim: int) -> None:
        self.e = e = Emitter(isa, name, ATTENTION)
        self.head_dim = head_dim
        self.query_bytes = 4 * head_dim
        places = {}
        offset = 0
        for part, nbytes in tile_attention_parts(head_dim).items():
            places[part] = e.at(e.scratch, offset)
            offset += nbytes
        unpacked = [places.pop(part) for part in ("unpacked keys", "unpacked values")]
        tiles = [places.pop(part) for part in ("keys", "values")]
        self.rows = TileRows(**places)
        self.blocks = TileBlocks(e, kind, head_dim, tiles=tiles, unpacked=unpacked)
        self.softmax = TileSoftmax(e, head_dim, self.rows, keys=tiles[0], values=tiles[1])
        self.heads_per_key = e.div(e.argument("heads"), e.argument("kv_heads"))
        self.all_rows = e.mul(e.tokens, self.heads_per_key)

    def emit(self) -> str:
        e = self.e
        item_rows = e.argument("item_rows")
        kv_heads = e.argument("kv_heads")
        items_per_head = e.ceil_div(self.all_rows, item_rows)
        configure_tiles(e)

        def one_item(number: Value) -> None:
            # the last rows see the most keys: they come first, so that threads end together
            place = e.sub(e.sub(items_per_head, 1), e.div(number, kv_heads))
            first_row = e.mul(place, item_rows)
            rows = e.min(item_rows, e.sub(self.all_rows, first_row))
            self.attend(_Item(e.rem(number, kv_heads), first_row, rows))

        parallel_for(e, e.mul(kv_heads, items_per_head), one_item)
        release_tiles(e)
        return e.finish()

    def attend(self, item: _Item) -> None:
        """Attend with an item's rows to all keys that one of them sees."""
        e = self.e
        padded_rows = e.mul(e.ceil_div(item.rows, TILE_ROWS), TILE_ROWS)
        e.loop(0, padded_rows, lambda row: self.gather_row(item, row))
        last_row = e.sub(e.add(item.first_row, item.rows), 1)
        start = self.visible_keys(e.div(item.first_row, self.heads_per_key)).begin
        stop = self.visible_keys(e.div(last_row, self.heads_per_key)).end

        def one_block(block: Value) -> None:
            part = KeyRange(e.max(block, start), e.min(e.add(block, KEY_BLOCK), stop))
            self.blocks.load(item.head, block, part)
            self.softmax.add(item.rows, block)

        e.loop(e.round_down(start, KEY_BLOCK), stop, one_block, step=KEY_BLOCK)
        e.loop(0, item.rows, lambda row: self.write_result(item, row))

    def visible_keys(self, token: Value) -> KeyRange:
        """Return the keys that a new token sees: itself and those of the window before it."""
        e = self.e
        end = e.add(e.sub(e.argument("length"), e.tokens), e.add(token, 1))
        return KeyRange(e.sub(end, e.min(end, e.argument("window"))), end)

    # --- rows in, results out

    def token_and_head(self, item: _Item, row: Value) -> tuple[Value, Value]:
        """Return token and query head of a row of an item; past the last, those of the last."""
        e = self.e
        number = e.min(e.add(item.first_row, row), e.sub(self.all_rows, 1))
        first_head = e.mul(item.head, self.heads_per_key)
        head = e.add(first_head, e.rem(number, self.heads_per_key))
        return e.div(number, self.heads_per_key), head

    def gather_row(self, item: _Item, row: Value) -> None:
        """Write a query, scaled, in bfloat16, and the keys that it sees; begin its sums."""
        e, rows = self.e, self.rows
        token, head = self.token_and_head(item, row)
        offset = e.add(e.mul(token, e.argument("row_bytes")), e.mul(head, self.query_bytes))
        source = e.at(e.address("queries"), offset)
        target = e.at(rows.queries, e.mul(row, 2 * self.head_dim))
        result = e.at(rows.results, e.mul(row, self.query_bytes))
        floats = vector(F32, _LANES)
        scale = e.b.fmul(e.argument("scale", F32), e.const(F32, LOG2_E))

        def some_features(place: Value) -> None:
            numbers = e.load(source, e.mul(place, 4), floats)
            scaled = e.b.fmul(numbers, e.broadcast(scale, _LANES))
            e.store(to_bf16(e, scaled), target, e.mul(place, 2))
            e.store(e.const(floats, 0.0), result, e.mul(place, 4))

        e.loop(0, self.head_dim, some_features, step=_LANES)
        visible = self.visible_keys(token)
        for bounds, bound in zip((rows.begins, rows.ends), visible, strict=True):
            e.store(e.b.trunc(bound, I32), bounds, e.mul(row, 4), align=4)
        e.store(e.const(F32, LOWEST), rows.largest, e.mul(row, 4), align=4)
        e.store(e.const(floats, 0.0), rows.totals, e.mul(row, 4 * _LANES))

    def write_result(self, item: _Item, row: Value) -> None:
        """Write a row's result: D numbers, the largest score and the sum."""
        e, rows = self.e, self.rows
        token, head = self.token_and_head(item, row)
        query = e.add(e.mul(token, e.argument("heads")), head)
        target = e.at(e.address("partials"), e.mul(query, self.query_bytes + 8))
        source = e.at(rows.results, e.mul(row, self.query_bytes))
        floats = vector(F32, _LANES)

        def copy(place: Value) -> None:
            offset = e.mul(place, 4)
            e.store(e.load(source, offset, floats), target, offset)

        e.loop(0, self.head_dim, copy, step=_LANES)
        largest = e.load(rows.largest, e.mul(row, 4), F32, align=4)
        largest = e.b.fmul(largest, e.const(F32, math.log(2)))
        e.store(largest, target, self.query_bytes, align=4)
        total = e.load(rows.totals, e.mul(row, 4 * _LANES), floats)
        e.store(e.sum_by_halves(total), target, self.query_bytes + 4)
