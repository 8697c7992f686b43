"""Attention over the cache: the queries of a key head, a split of the keys at a time.

A query's result does not depend on how many rows its call has: blocks and splits of the keys begin
at fixed positions, and ``online_softmax.py`` takes the keys of a block in their order.
"""

# L tokens, H query heads, G key/value heads, D head size; a row is one query of one token, and the
# L * H / G rows of a key head are numbered token by token

from __future__ import annotations

from typing import NamedTuple

from edgellm.kernels.attention.key_columns import KeyColumns
from edgellm.kernels.attention.kv_storage import HeadRows, KeyRange, head_rows
from edgellm.kernels.attention.online_softmax import LOWEST, KeyBlocks, RowState
from edgellm.kernels.attention.scratch import attention_parts
from edgellm.kernels.codegen.abi import (
    ATTENTION,
    KEY_BLOCK,
    QUERY_ROWS,
    SPLIT_KEYS,
)
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, I32, Value, vector


class _Item(NamedTuple):
    """The work of one thread at a time: a key head, some of its rows, some splits of its keys."""

    head: Value
    first_row: Value
    rows: Value
    first_split: Value


def emit_attention(isa: Isa, name: str, kind: str, head_dim: int) -> str:
    """Emit ``attention``: a partial result for each query and split of the keys.

    That is the sum of e^(score - largest) * value, then the largest score and the sum of
    e^(score - largest): (D + 2) numbers. The arguments are those of ``abi.ATTENTION``; the cache is
    of ``kind``, its heads of ``head_dim`` features.
    """
    return _Attention(isa, name, kind, head_dim).emit()


class _Attention:
    """The kernel; its scratch holds the parts of ``abi.attention_parts``."""

    def __init__(self, isa: Isa, name: str, kind: str, head_dim: int) -> None:
        self.e = e = Emitter(isa, name, ATTENTION)
        self.kind = kind
        self.head_dim = head_dim
        self.query_bytes = 4 * head_dim
        places = {}
        offset = 0
        for part, nbytes in attention_parts(isa.lanes, head_dim).items():
            places[part] = e.at(e.scratch, offset)
            offset += nbytes
        self.unpacked = {part: places.pop(part) for part in ("keys", "values")}
        turned, edge = places.pop("columns"), places.pop("edge")
        self.state = RowState(**places)
        columns = KeyColumns(e, head_dim, address=turned, edge=edge)
        self.blocks = KeyBlocks(e, head_dim=head_dim, state=self.state, columns=columns)
        self.length = e.argument("length")
        self.window = e.argument("window")
        self.splits = e.argument("splits")
        self.heads_per_key = e.div(e.argument("heads"), e.argument("kv_heads"))
        self.all_rows = e.mul(e.tokens, self.heads_per_key)

    def emit(self) -> str:
        e = self.e
        item_splits = e.argument("item_splits")
        runs = e.ceil_div(self.splits, item_splits)
        items_per_head = e.mul(e.ceil_div(self.all_rows, QUERY_ROWS), runs)

        def one_item(number: Value) -> None:
            head = e.div(number, items_per_head)
            place = e.rem(number, items_per_head)
            first_row = e.mul(e.div(place, runs), QUERY_ROWS)
            rows = e.min(QUERY_ROWS, e.sub(self.all_rows, first_row))
            first_split = e.mul(e.rem(place, runs), item_splits)
            item = _Item(head, first_row, rows, first_split)
            self.gather_rows(item)
            last_split = e.min(e.add(first_split, item_splits), self.splits)

            def one_split(split: Value) -> None:
                self.attend(item, split)

            e.loop(first_split, last_split, one_split)

        parallel_for(e, e.mul(e.argument("kv_heads"), items_per_head), one_item)
        return e.finish()

    def attend(self, item: _Item, split: Value) -> None:
        """Attend with an item's rows to one split of the keys."""
        e, state = self.e, self.state
        last_row = e.sub(e.add(item.first_row, item.rows), 1)
        # the keys that any of the rows sees
        lowest = self.visible_keys(e.div(item.first_row, self.heads_per_key)).begin
        highest = self.visible_keys(e.div(last_row, self.heads_per_key)).end
        start, stop = self.split_keys(e.add(e.argument("first_split"), split))
        start = e.max(start, lowest)
        stop = e.min(stop, highest)

        def clear(row: Value) -> None:
            e.store(e.const(F32, LOWEST), state.largest, e.mul(row, 4), align=4)
            zeros = e.const(vector(F32, e.isa.lanes), 0.0)
            e.store(zeros, state.totals, e.mul(row, zeros.type.count * 4))

            def clear_features(place: Value, lanes: int) -> None:
                offset = e.add(e.mul(row, self.query_bytes), e.mul(place, 4))
                e.store(e.const(vector(F32, lanes), 0.0), state.results, offset)

            e.sweep(e.index(self.head_dim), clear_features)

        e.loop(0, item.rows, clear)

        def one_block(position: Value) -> None:
            begin = e.max(position, start)
            part = KeyRange(begin, e.min(e.add(position, KEY_BLOCK), stop))
            keys, values = (self.load_block(what, item.head, part) for what in ("key", "value"))
            self.blocks.add(keys, values, part, item.rows)

        # blocks begin at multiples of their size, wherever the split does
        e.loop(e.round_down(start, KEY_BLOCK), stop, one_block, step=KEY_BLOCK)
        self.write_results(item, split)

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

    def load_block(self, what: str, head: Value, part: KeyRange) -> HeadRows:
        """Return where the keys or values of a part are, codes unpacked to float32."""
        target = self.unpacked[f"{what}s"]
        return head_rows(self.e, self.kind, what, head, part, head_dim=self.head_dim, target=target)

    # --- rows in, results out

    def token_and_head(self, item: _Item, row: Value) -> tuple[Value, Value]:
        """Return token and query head of a row of an item."""
        e = self.e
        number = e.add(item.first_row, row)
        first_head = e.mul(item.head, self.heads_per_key)
        head = e.add(first_head, e.rem(number, self.heads_per_key))
        return e.div(number, self.heads_per_key), head

    def gather_rows(self, item: _Item) -> None:
        """Write an item's queries, scaled, and the keys that each sees."""
        e, state = self.e, self.state

        def one_row(row: Value) -> None:
            token, head = self.token_and_head(item, row)
            token_row = e.mul(token, e.argument("row_bytes"))
            source = e.at(e.address("queries"), e.add(token_row, e.mul(head, self.query_bytes)))
            target = e.at(state.queries, e.mul(row, self.query_bytes))

            def scale(place: Value, lanes: int) -> None:
                numbers = e.load(source, e.mul(place, 4), vector(F32, lanes))
                factor = e.broadcast(e.argument("scale", F32), lanes)
                e.store(e.b.fmul(numbers, factor), target, e.mul(place, 4))

            e.sweep(e.index(self.head_dim), scale)
            visible = self.visible_keys(token)
            for bounds, bound in zip((state.begins, state.ends), visible, strict=True):
                e.store(e.b.trunc(bound, I32), bounds, e.mul(row, 4), align=4)

        e.loop(0, item.rows, one_row)

    def write_results(self, item: _Item, split: Value) -> None:
        """Write each row's partial result: D numbers, the largest score and the sum."""
        e, state = self.e, self.state
        lanes = e.isa.lanes

        def one_row(row: Value) -> None:
            token, head = self.token_and_head(item, row)
            query = e.add(e.mul(token, e.argument("heads")), head)
            place = e.add(e.mul(query, self.splits), split)
            target = e.at(e.address("partials"), e.mul(place, self.query_bytes + 8))
            source = e.at(state.results, e.mul(row, self.query_bytes))

            def copy(place: Value, lanes: int) -> None:
                offset = e.mul(place, 4)
                e.store(e.load(source, offset, vector(F32, lanes)), target, offset)

            e.sweep(e.index(self.head_dim), copy)
            largest = e.load(state.largest, e.mul(row, 4), F32, align=4)
            e.store(largest, target, self.query_bytes, align=4)
            total = e.load(state.totals, e.mul(row, 4 * lanes), vector(F32, lanes))
            e.store(e.sum_by_halves(total), target, self.query_bytes + 4)

        e.loop(0, item.rows, one_row)
