"""Attention over the cache: a vector of queries and a split of the keys at a time.

The lanes of a vector are queries: tokens times the heads that share a key head. Maxima and sums are
then plain vector operations, and every key and value is a broadcast that serves all lanes.

A query's result does not depend on how many rows its call has: blocks and splits of the keys begin
at fixed positions, and ``online_softmax.py`` takes the keys of a block in their order.
"""

# L tokens, H query heads, G key/value heads, D head size; a row is one query of one token, and the
# L * H / G rows of a key head are numbered token by token

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgellm.kernels.attention.kv_storage import StoredRows, padded, unpack_rows
from edgellm.kernels.attention.online_softmax import LOWEST, KeyBlocks, KeyRange, Softmax
from edgellm.kernels.codegen.abi import ATTENTION, KEY_BLOCK, SPLIT_KEYS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, I32, Value, vector


class _Item(NamedTuple):
    """The work of one thread at a time: a key head, a vector of its rows, a split of its keys."""

    head: Value
    first_row: Value
    split: Value


def emit_attention(isa: Isa, name: str, kind: str = "f32") -> str:
    """Emit ``attention``: a partial result for each query and split of the keys.

    That is the sum of e^(score - largest) * value, then the largest score and the sum of
    e^(score - largest): (D + 2) numbers. The arguments are those of ``abi.ATTENTION``; the cache is
    of ``kind``.
    """
    return _Attention(isa, name, kind).emit()


class _Attention:
    """The kernel; its scratch holds, for a vector of rows:

    queries (D, lanes), results (D, lanes), scores (KEY_BLOCK, lanes); of a packed cache also a
    block of keys and one of values in float32, (KEY_BLOCK, padded D) each.
    """

    def __init__(self, isa: Isa, name: str, kind: str) -> None:
        self.e = e = Emitter(isa, name, ATTENTION)
        self.kind = kind
        self.lanes = isa.lanes
        self.vector_bytes = 4 * isa.lanes
        self.floats = vector(F32, isa.lanes)
        self.words = vector(I32, isa.lanes)
        self.zeros = e.const(self.floats, 0.0)
        self.head_dim = e.argument("head_dim")
        self.query_bytes = e.mul(e.argument("head_dim"), 4)
        self.queries = e.scratch
        self.results = e.at(self.queries, e.mul(self.head_dim, self.vector_bytes))
        self.scores = e.at(self.results, e.mul(self.head_dim, self.vector_bytes))
        self.key_bytes = self.query_bytes
        if kind != "f32":
            self.key_bytes = e.mul(padded(e, self.head_dim), 4)
            self.block_keys = e.at(self.scores, KEY_BLOCK * self.vector_bytes)
            self.block_values = e.at(self.block_keys, e.mul(self.key_bytes, KEY_BLOCK))
        self.blocks = KeyBlocks(
            e,
            head_dim=self.head_dim,
            key_bytes=self.key_bytes,
            queries=self.queries,
            results=self.results,
            scores=self.scores,
        )
        self.length = e.argument("length")
        self.window = e.argument("window")
        self.splits = e.argument("splits")
        self.heads_per_key = e.div(e.argument("heads"), e.argument("kv_heads"))
        self.rows = e.mul(e.tokens, self.heads_per_key)

    def emit(self) -> str:
        e = self.e
        row_blocks = e.ceil_div(self.rows, self.lanes)
        items_per_head = e.mul(row_blocks, self.splits)

        def one_item(item: Value) -> None:
            head = e.div(item, items_per_head)
            row_block = e.div(e.rem(item, items_per_head), self.splits)
            split = e.rem(item, self.splits)
            self.attend(_Item(head, e.mul(row_block, self.lanes), split))

        parallel_for(e, e.mul(e.argument("kv_heads"), items_per_head), one_item)
        return e.finish()

    def attend(self, item: _Item) -> None:
        """Attend with one vector of rows to one split of the keys."""
        e = self.e
        count = e.min(self.lanes, e.sub(self.rows, item.first_row))
        self.gather_queries(item)
        last_row = e.sub(e.add(item.first_row, count), 1)
        # the keys that any of the rows sees
        lowest = self.visible_keys(e.div(item.first_row, self.heads_per_key)).begin
        highest = self.visible_keys(e.div(last_row, self.heads_per_key)).end
        start, stop = self.split_keys(e.add(e.argument("first_split"), item.split))
        start = e.max(start, lowest)
        stop = e.min(stop, highest)
        visible = self.visible_by_lane(item.first_row)

        def clear(feature: Value) -> None:
            e.store(self.zeros, self.results, e.mul(feature, self.vector_bytes))

        e.loop(0, self.head_dim, clear)

        def one_block(position: Value, largest: Value, total: Value) -> Sequence[Value]:
            begin = e.max(position, start)
            part = KeyRange(begin, e.min(e.add(position, KEY_BLOCK), stop))
            keys, values = self.load_block(item.head, part)
            return self.blocks.add(keys, values, part, visible, Softmax(largest, total))

        softmax = [e.const(self.floats, LOWEST), self.zeros]
        # blocks begin at multiples of their size, wherever the split does
        first_block = e.round_down(start, KEY_BLOCK)
        softmax = e.loop(first_block, stop, one_block, softmax, step=KEY_BLOCK)
        self.scatter_results(item, count, Softmax(*softmax))

    # --- which keys

    def split_keys(self, number: Value) -> KeyRange:
        """Return the positions of a split, as ``abi.split_of`` numbers them."""
        e = self.e

        def start(split: Value) -> Value:
            octave = e.max(e.div(split, 8), 1)
            exponent = e.min(e.sub(octave, 1), e.argument("max_exponent"))
            exponent = e.max(exponent, e.argument("min_exponent"))
            place = e.sub(split, e.mul(exponent, 8))
            return e.mul(place, e.b.shl(e.index(SPLIT_KEYS), exponent))

        begin = start(number)
        return KeyRange(begin, start(e.add(number, 1)))

    def visible_keys(self, token: Value) -> KeyRange:
        """Return the keys that a new token sees: itself and those of the window before it."""
        e = self.e
        end = e.add(e.sub(self.length, e.tokens), e.add(token, 1))
        return KeyRange(e.sub(end, e.min(end, self.window)), end)

    def visible_by_lane(self, first_row: Value) -> KeyRange:
        """Return the keys that each lane sees, as (lanes,) 32-bit integers."""
        e = self.e
        begins = e.const(self.words, 0)
        ends = e.const(self.words, 0)
        for lane in range(self.lanes):
            # lanes past the end repeat the last row
            row = e.min(e.add(first_row, lane), e.sub(self.rows, 1))
            visible = self.visible_keys(e.div(row, self.heads_per_key))
            number = e.const(I32, lane)
            begins = e.b.insert_element(begins, e.b.trunc(visible.begin, I32), number)
            ends = e.b.insert_element(ends, e.b.trunc(visible.end, I32), number)
        return KeyRange(begins, ends)

    def load_block(self, head: Value, part: KeyRange) -> tuple[Value, Value]:
        """Return where the keys and values of a part lie in float32, from the part's first on."""
        e = self.e
        head_bytes = e.argument("head_bytes")
        if self.kind == "f32":
            offset = e.add(e.mul(head, head_bytes), e.mul(part.begin, self.query_bytes))
            keys = e.at(e.address("keys"), offset)
            return keys, e.at(e.address("values"), offset)
        for name, target in (("key", self.block_keys), ("value", self.block_values)):
            unpack_rows(
                e,
                self.kind,
                StoredRows(*map(e.address, (f"{name}s", f"{name}_scales", f"{name}_biases"))),
                head=head,
                head_bytes=head_bytes,
                begin=part.begin,
                end=part.end,
                head_dim=self.head_dim,
                target=target,
            )
        return self.block_keys, self.block_values

    # --- rows in, results out

    def token_and_head(self, head: Value, row: Value) -> tuple[Value, Value]:
        """Return token and query head of a row of this key head."""
        e = self.e
        token = e.div(row, self.heads_per_key)
        first_head = e.mul(head, self.heads_per_key)
        return token, e.add(first_head, e.rem(row, self.heads_per_key))

    def gather_queries(self, item: _Item) -> None:
        """Write scaled queries to scratch, (D, lanes); lanes past the end repeat the last query."""
        e = self.e

        def one_lane(lane: Value) -> None:
            row = e.min(e.add(item.first_row, lane), e.sub(self.rows, 1))
            token, query_head = self.token_and_head(item.head, row)
            queries = e.address("queries")
            token_row = e.mul(token, e.argument("row_bytes"))
            source = e.at(queries, e.add(token_row, e.mul(query_head, self.query_bytes)))

            def one_feature(feature: Value) -> None:
                number = e.load(source, e.mul(feature, 4), F32, align=4)
                scaled = e.b.fmul(number, e.argument("scale", F32))
                offset = e.add(e.mul(feature, self.vector_bytes), e.mul(lane, 4))
                e.store(scaled, self.queries, offset, align=4)

            e.loop(0, self.head_dim, one_feature)

        e.loop(0, self.lanes, one_lane)

    def scatter_results(self, item: _Item, count: Value, softmax: Softmax) -> None:
        """Write results from (D, lanes) to a row a query: D numbers, largest score and sum."""
        e = self.e
        # through memory, to read them lane by lane
        for place, lanes in enumerate(softmax):
            e.store(lanes, self.scores, place * self.vector_bytes, align=4)

        def one_lane(lane: Value) -> None:
            token, query_head = self.token_and_head(item.head, e.add(item.first_row, lane))
            query = e.add(e.mul(token, e.argument("heads")), query_head)
            row = e.add(e.mul(query, self.splits), item.split)
            target = e.at(e.address("partials"), e.mul(row, e.add(self.query_bytes, 8)))

            def one_feature(feature: Value) -> None:
                offset = e.add(e.mul(feature, self.vector_bytes), e.mul(lane, 4))
                number = e.load(self.results, offset, F32, align=4)
                e.store(number, target, e.mul(feature, 4), align=4)

            e.loop(0, self.head_dim, one_feature)
            for place in range(len(softmax)):
                offset = e.add(place * self.vector_bytes, e.mul(lane, 4))
                number = e.load(self.scores, offset, F32, align=4)
                e.store(number, target, e.add(self.query_bytes, 4 * place), align=4)

        e.loop(0, count, one_lane)
