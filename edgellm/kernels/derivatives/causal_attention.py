"""Attention of whole sequences whose tokens see what is before them, and its derivatives."""

# L rows of a sequence, S keys that some queries see, H query heads, G key/value heads, D head size

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.abi import CAUSAL, CAUSAL_ROWS
from edgellm.kernels.codegen.emitter import Emitter
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import parallel_for
from edgellm.kernels.codegen.values import F32, I32, I64, Value, vector
from edgellm.kernels.derivatives.strided_matmul import BlockProduct, Strided

_LOWEST = -3.0e38
"""Below all scores."""


def emit_causal(isa: Isa, name: str, head_dim: int) -> str:
    """Emit ``causal``: ``softmax(scale Q K^T) V`` of each sequence and head.

    The arguments are those of ``abi.CAUSAL``.
    """
    return _Causal(isa, name, head_dim).emit()


def emit_causal_backward(isa: Isa, name: str, head_dim: int) -> str:
    """Emit ``causal_backward``: derivatives by queries, keys and values.

    Weights are computed again; with ``g`` the derivative by one it is ``w (g - sum(w g))`` by its
    score. The arguments are those of ``abi.CAUSAL``.
    """
    return _Backward(isa, name, head_dim).emit()


class _Causal:
    """A thread takes a sequence and a key head with the queries that share it.

    So each sum has an order that does not depend on threads. Its scratch holds keys turned, (D, L),
    and scores of ``CAUSAL_ROWS`` queries; rows are padded to whole vectors.
    """

    def __init__(self, isa: Isa, name: str, head_dim: int) -> None:
        e = Emitter(isa, name, CAUSAL)
        self.e = e
        self.head_dim = head_dim
        self.head_bytes = 4 * head_dim
        self.lanes: int = isa.lanes
        self.set_product: BlockProduct = BlockProduct(e, "set")
        self.heads, self.kv_heads = e.argument("heads"), e.argument("kv_heads")
        self.group = e.div(self.heads, self.kv_heads)
        self.scale = e.argument("scale", F32)
        self.out_row = e.mul(self.heads, self.head_bytes)
        self.qkv_row = e.mul(e.add(self.heads, e.mul(self.kv_heads, 2)), self.head_bytes)
        # of the sequence and the key head that is under way
        self.first: Value = None
        self.length: Value = None
        self.kv_head: Value = None
        self.line: Value = None

    def emit(self) -> str:
        """Return the text of the function."""
        e = self.e
        parallel_for(e, e.mul(e.argument("count"), self.kv_heads), self.one_item)
        return e.finish()

    def one_item(self, item: Value) -> None:
        """Do all queries of a sequence that share a key head."""
        e = self.e
        place = e.mul(e.div(item, self.kv_heads), 16)
        sequences = e.address("sequences")
        self.first = e.load(sequences, place, I64)
        self.length = e.load(sequences, e.add(place, 8), I64)
        self.kv_head = e.rem(item, self.kv_heads)
        width = 2 * self.lanes
        padded = e.mul(e.ceil_div(self.length, width), width)
        self.line = e.mul(padded, 4)
        self.turned_keys = Strided(e.scratch, self.line)
        self.scores = self.behind(self.turned_keys, self.head_dim)
        self.keys = self.part(e.address("qkv"), e.add(self.heads, self.kv_head))
        values = e.add(e.add(self.heads, self.kv_heads), self.kv_head)
        self.values = self.part(e.address("qkv"), values)
        self.turn(self.keys, self.turned_keys)
        self.begin_item()

        def one_head(head: Value) -> None:
            def some_rows(begin: Value) -> None:
                count = e.min(CAUSAL_ROWS, e.sub(self.length, begin))
                self.some_rows(e.add(e.mul(self.kv_head, self.group), head), begin, count)

            e.loop(0, self.length, some_rows, step=CAUSAL_ROWS)

        e.loop(0, self.group, one_head)

    def begin_item(self) -> None:
        """Do what comes before the queries."""

    def some_rows(self, head: Value, begin: Value, count: Value) -> None:
        """Write the results of some queries of a head."""
        e = self.e
        self.weigh(head, begin, count)
        out = Strided(e.at(e.address("out"), e.mul(self.first, self.out_row)), self.out_row)
        self.set_product(
            e,
            self.scores,
            self.values,
            self.rows_of(out, head, begin),
            left_column=4,
            rows=count,
            columns=self.head_dim,
            summed=e.add(begin, count),
        )

    def weigh(self, head: Value, begin: Value, count: Value) -> None:
        """Write the weights of some queries' keys, 0 of those that they do not see."""
        e = self.e
        seen = self.seen_columns(begin, count)
        self.set_product(
            e,
            self.rows_of(self.part(e.address("qkv"), e.index(0)), head, begin),
            self.turned_keys,
            self.scores,
            left_column=4,
            rows=count,
            columns=seen,
            summed=self.head_dim,
            factor=self.scale,
        )
        e.loop(0, count, lambda row: self.softmax(row, e.add(begin, row), seen))

    def softmax(self, row: Value, last: Value, seen: Value) -> None:
        """Make weights of a row of scores; ``last`` is the last key that it sees."""
        e, lanes = self.e, self.lanes
        floats = vector(F32, lanes)
        line = e.at(self.scores.address, e.mul(row, self.line))
        own = e.mul(e.ceil_div(e.add(last, 1), lanes), lanes)
        numbers = e.const_lanes(I32, range(lanes))
        last_word = e.broadcast(e.b.trunc(last, I32), lanes)

        def is_seen(place: Value) -> Value:
            places = e.b.add(e.broadcast(e.b.trunc(place, I32), lanes), numbers)
            return e.b.icmp_signed("<=", places, last_word)

        def largest(place: Value, most: Value) -> Sequence[Value]:
            found = e.load(line, e.mul(place, 4), floats)
            found = e.b.select(is_seen(place), found, e.const(floats, _LOWEST))
            return [e.binary("maxnum", most, found)]

        [most] = e.loop(0, own, largest, [e.const(floats, _LOWEST)], step=lanes)
        most = e.broadcast(e.reduce_max(most), lanes)
        zeros = e.const(floats, 0.0)

        def power(place: Value, total: Value) -> Sequence[Value]:
            offset = e.mul(place, 4)
            found = exp(e, e.b.fsub(e.load(line, offset, floats), most))
            found = e.b.select(is_seen(place), found, zeros)
            e.store(found, line, offset)
            return [e.b.fadd(total, found)]

        [total] = e.loop(0, own, power, [zeros], step=lanes)
        share = e.b.fdiv(e.const(F32, 1.0), e.reduce_sum(total))
        factor = e.broadcast(share, lanes)

        def scale(place: Value) -> None:
            offset = e.mul(place, 4)
            e.store(e.b.fmul(e.load(line, offset, floats), factor), line, offset)

        e.loop(0, own, scale, step=lanes)
        e.loop(own, seen, lambda place: e.store(zeros, line, e.mul(place, 4)), step=lanes)

    def seen_columns(self, begin: Value, count: Value) -> Value:
        """Return the keys that some queries see, as whole vectors."""
        e, width = self.e, 2 * self.lanes
        return e.mul(e.ceil_div(e.add(begin, count), width), width)

    def part(self, heads: Value, head: Value) -> Strided:
        """Return a head's numbers of the sequence's rows (L, D), of those of all heads."""
        e = self.e
        start = e.add(e.mul(self.first, self.qkv_row), e.mul(head, self.head_bytes))
        return Strided(e.at(heads, start), self.qkv_row)

    def rows_of(self, rows: Strided, head: Value, begin: Value) -> Strided:
        """Return a head's numbers of rows from one on."""
        e = self.e
        start = e.add(e.mul(begin, rows.row), e.mul(head, self.head_bytes))
        return Strided(e.at(rows.address, start), rows.row)

    def behind(self, rows: Strided, count: int) -> Strided:
        """Return the scratch behind so many rows."""
        e = self.e
        return Strided(e.at(rows.address, e.mul(self.line, count)), self.line)

    def turn(self, rows: Strided, target: Strided) -> None:
        """Write a head's numbers (L, D) turned, (D, L); the last row fills what is behind it."""
        e = self.e
        side = self.lanes
        while self.head_dim % side:
            side //= 2
        last = e.sub(self.length, 1)

        def some_rows(first: Value) -> None:
            sources = [
                e.at(rows.address, e.mul(e.min(e.add(first, number), last), rows.row))
                for number in range(side)
            ]

            def one_square(column: Value) -> None:
                offset = e.mul(column, 4)
                lines = [e.load(source, offset, vector(F32, side), align=4) for source in sources]
                for number, line in enumerate(e.transpose(lines)):
                    start = e.mul(e.add(column, number), self.line)
                    e.store(line, target.address, e.add(start, e.mul(first, 4)), align=4)

            e.loop(0, self.head_dim, one_square, step=side)

        e.loop(0, e.div(self.line, 4), some_rows, step=side)


class _Backward(_Causal):
    """The scratch also holds values turned, and derivatives by the scores of some queries."""

    def __init__(self, isa: Isa, name: str, head_dim: int) -> None:
        super().__init__(isa, name, head_dim)
        self.add_product: BlockProduct = BlockProduct(self.e, "add")

    def begin_item(self) -> None:
        """Turn values; begin sums of derivatives by keys and values."""
        e = self.e
        self.turned_values = self.behind(self.scores, CAUSAL_ROWS)
        self.by_scores = self.behind(self.turned_values, self.head_dim)
        self.turn(self.values, self.turned_values)
        self.by_keys = self.part(e.address("by_qkv"), e.add(self.heads, self.kv_head))
        values = e.add(e.add(self.heads, self.kv_heads), self.kv_head)
        self.by_values = self.part(e.address("by_qkv"), values)
        for rows in (self.by_keys, self.by_values):
            self.clear(rows)

    def clear(self, rows: Strided) -> None:
        """Write zeros to a head's numbers of all rows of the sequence."""
        e = self.e

        def one_row(row: Value) -> None:
            line = e.at(rows.address, e.mul(row, rows.row))

            def some_zeros(place: Value, lanes: int) -> None:
                e.store(e.const(vector(F32, lanes), 0.0), line, e.mul(place, 4), align=4)

            e.sweep(e.index(self.head_dim), some_zeros)

        e.loop(0, self.length, one_row)

    def some_rows(self, head: Value, begin: Value, count: Value) -> None:
        """Write derivatives by some queries of a head, add those by keys and values."""
        e = self.e
        self.weigh(head, begin, count)
        columns, seen = self.seen_columns(begin, count), e.add(begin, count)
        by_all = Strided(e.at(e.address("out"), e.mul(self.first, self.out_row)), self.out_row)
        by_out = self.rows_of(by_all, head, begin)
        queries = self.rows_of(self.part(e.address("qkv"), e.index(0)), head, begin)
        by_queries = self.rows_of(self.part(e.address("by_qkv"), e.index(0)), head, begin)
        sizes = {"rows": count, "columns": columns, "summed": self.head_dim}
        self.set_product(e, by_out, self.turned_values, self.by_scores, left_column=4, **sizes)
        e.loop(0, count, lambda row: self.differentiate(row, columns))
        sizes = {"rows": count, "columns": self.head_dim, "summed": seen}
        self.set_product(e, self.by_scores, self.keys, by_queries, left_column=4, **sizes)
        # turned: a row for each key
        sizes = {"rows": seen, "columns": self.head_dim, "summed": count}
        for scores, right, sums in (
            (self.by_scores, queries, self.by_keys),
            (self.scores, by_out, self.by_values),
        ):
            turned = Strided(scores.address, 4)
            self.add_product(e, turned, right, sums, left_column=self.line, **sizes)

    def differentiate(self, row: Value, columns: Value) -> None:
        """Make derivatives by scores of those by weights: ``w (g - sum(w g))``, scaled."""
        e, lanes = self.e, self.lanes
        floats = vector(F32, lanes)
        start = e.mul(row, self.line)
        weights, line = e.at(self.scores.address, start), e.at(self.by_scores.address, start)

        def add(place: Value, total: Value) -> Sequence[Value]:
            offset = e.mul(place, 4)
            weight, by_weight = e.load(weights, offset, floats), e.load(line, offset, floats)
            return [e.fma(weight, by_weight, total)]

        [total] = e.loop(0, columns, add, [e.const(floats, 0.0)], step=lanes)
        mean = e.broadcast(e.reduce_sum(total), lanes)
        scale = e.broadcast(self.scale, lanes)

        def differentiate(place: Value) -> None:
            offset = e.mul(place, 4)
            weight, by_weight = e.load(weights, offset, floats), e.load(line, offset, floats)
            by_score = e.b.fmul(weight, e.b.fsub(by_weight, mean))
            e.store(e.b.fmul(by_score, scale), line, offset)

        e.loop(0, columns, differentiate, step=lanes)
