"""Attention over the cache, with the softmax taken along the way (Milakov and Gimelshein 2018, arXiv:1805.02867).

The lanes of a vector are queries: tokens times the heads that share a key head. Maxima and sums are
then plain vector operations, and every key and value is a broadcast that serves all lanes.

A query's result does not depend on how many rows its call has: blocks and shares of the keys begin
at fixed positions, keys are taken in their order, and one that a query may not see adds exactly
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgellm.kernels.attention.kv_unpack import padded, unpack_rows
from edgellm.kernels.codegen.abi import ATTENTION, KEY_BLOCK, SPLIT_KEYS
from edgellm.kernels.codegen.emitter import F32, I32, Emitter, Value, vector
from edgellm.kernels.codegen.exp import exp
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items

_TILE = 8
"""Keys, or features, that are summed side by side."""

LOWEST, _HIDDEN, _SEEN = -1e30, -3e38, -1e38
"""Where maxima begin, the score of a key that a query may not see, and what is below the score of any that it may."""


def emit_attention(isa: Isa, name: str, kind: str = "f32") -> str:
    """Emit ``attention``: a partial result for each query and split of the keys.

    That is the sum of e^(score - largest) * value, then the largest score and the sum of
    e^(score - largest): (D + 2) numbers. The arguments are those of ``abi.ATTENTION``; the cache is
    of ``kind``.
    """
    return _Attention(isa, name, kind).emit()


class _Attention:
    def __init__(self, isa: Isa, name: str, kind: str) -> None:
        self.e = e = Emitter(isa, name)
        self.kind = kind
        self.width_lanes = isa.lanes
        self.floats, self.words = vector(F32, isa.lanes), vector(I32, isa.lanes)
        self.vector_bytes = 4 * isa.lanes
        self.head_dim, self.nbytes = (
            e.argument(ATTENTION["head_dim"]),
            e.mul(e.argument(ATTENTION["head_dim"]), 4),
        )
        self.queries = e.scratch
        self.results = e.at(self.queries, e.mul(self.head_dim, self.vector_bytes))
        self.scores = e.at(self.results, e.mul(self.head_dim, self.vector_bytes))
        self.row_bytes = self.nbytes
        if kind != "f32":  # a block of keys, then of values, is unpacked into this thread's memory
            self.row_bytes = e.mul(padded(e, self.head_dim), 4)
            self.block_keys = e.at(self.scores, KEY_BLOCK * self.vector_bytes)
            self.block_values = e.at(self.block_keys, e.mul(self.row_bytes, KEY_BLOCK))
        self.held, self.window, self.splits = (
            e.argument(ATTENTION["length"]),
            e.argument(ATTENTION["window"]),
            e.argument(ATTENTION["splits"]),
        )
        self.shared_heads = e.div(e.argument(ATTENTION["heads"]), e.argument(ATTENTION["kv_heads"]))
        self.rows = e.mul(e.tokens, self.shared_heads)

    def emit(self) -> str:
        e = self.e
        blocks = e.ceil_div(self.rows, self.width_lanes)
        per_head = e.mul(blocks, self.splits)
        next_items(
            e,
            e.mul(e.argument(ATTENTION["kv_heads"]), per_head),
            lambda item: self.one(
                e.div(item, per_head),
                e.div(e.rem(item, per_head), self.splits),
                e.rem(item, self.splits),
            ),
        )
        return e.finish()

    def one(self, head: Value, block: Value, split: Value) -> None:
        """One key head, one vector of queries, one share of the keys."""
        e = self.e
        first = e.mul(block, self.width_lanes)
        count = e.min(self.width_lanes, e.sub(self.rows, first))
        self.gather(head, first)
        last = e.sub(e.add(first, count), 1)
        low, _ = self.seen(e.div(first, self.shared_heads))
        _, high = self.seen(e.div(last, self.shared_heads))
        start, stop = self.share(e.add(e.argument(ATTENTION["first_split"]), split))
        start, stop = e.max(start, low), e.min(stop, high)
        bounds = self.bounds(first)
        e.loop(
            0,
            self.head_dim,
            lambda d: e.store(e.const(self.floats, 0.0), self.results, e.mul(d, self.vector_bytes)),
        )

        def keys_block(at: Value, largest: Value, total: Value) -> Sequence[Value]:
            part = e.max(at, start), e.min(e.add(at, KEY_BLOCK), stop)
            return self.block(*self.rows_of(head, part), part, bounds, (largest, total))

        carried = [e.const(self.floats, LOWEST), e.const(self.floats, 0.0)]
        aligned = e.mul(e.div(start, KEY_BLOCK), KEY_BLOCK)
        largest, total = e.loop(aligned, stop, keys_block, carried, step=KEY_BLOCK)
        self.scatter((head, first, split), count, (largest, total))

    def share(self, number: Value) -> tuple[Value, Value]:
        """The positions of a share, as ``abi.split_of`` has them."""
        e = self.e

        def start(share: Value) -> Value:
            octave = e.div(share, 8)
            exponent = e.max(
                e.min(e.sub(e.max(octave, 1), 1), e.argument(ATTENTION["max_exponent"])),
                e.argument(ATTENTION["min_exponent"]),
            )
            return e.mul(e.sub(share, e.mul(exponent, 8)), e.b.shl(e.index(SPLIT_KEYS), exponent))

        return start(number), start(e.add(number, 1))

    def rows_of(self, head: Value, part: tuple[Value, Value]) -> tuple[Value, Value]:
        """Addresses of the keys and values of a part in float32, where the first of the part lies."""
        e = self.e
        begin, end = part
        head_bytes = e.argument(ATTENTION["head_bytes"])
        if self.kind == "f32":
            at = e.add(e.mul(head, head_bytes), e.mul(begin, self.nbytes))
            return e.at(e.address(ATTENTION["keys"]), at), e.at(e.address(ATTENTION["values"]), at)
        for codes, tables, target in (
            ("keys", "key", self.block_keys),
            ("values", "value", self.block_values),
        ):
            names = (codes, f"{tables}_scales", f"{tables}_biases")
            places = tuple(e.address(ATTENTION[name]) for name in names)
            rows = {"heads": (head, head_bytes), "part": (begin, end), "width": self.head_dim}
            unpack_rows(e, self.kind, places=places, target=target, **rows)
        return self.block_keys, self.block_values

    def seen(self, token: Value) -> tuple[Value, Value]:
        """The keys that a token sees: from the first to before the last."""
        e = self.e
        high = e.add(e.sub(self.held, e.tokens), e.add(token, 1))
        return e.sub(high, e.min(high, self.window)), high

    def bounds(self, first: Value) -> tuple[Value, Value]:
        """The keys that each lane sees."""
        e, low, high = self.e, self.e.const(self.words, 0), self.e.const(self.words, 0)
        for lane in range(self.width_lanes):
            row = e.min(e.add(first, lane), e.sub(self.rows, 1))
            begin, end = self.seen(e.div(row, self.shared_heads))
            low = e.b.insert_element(low, e.b.trunc(begin, I32), e.const(I32, lane))
            high = e.b.insert_element(high, e.b.trunc(end, I32), e.const(I32, lane))
        return low, high

    def place(self, head: Value, row: Value) -> tuple[Value, Value]:
        """Token and query head of a row of this key head."""
        e = self.e
        return e.div(row, self.shared_heads), e.add(
            e.mul(head, self.shared_heads), e.rem(row, self.shared_heads)
        )

    def gather(self, head: Value, first: Value) -> None:
        """Scaled queries into scratch, features by lanes; lanes past the end repeat the last query."""
        e = self.e

        def lane(number: Value) -> None:
            token, query = self.place(head, e.min(e.add(first, number), e.sub(self.rows, 1)))
            source = e.at(
                e.address(ATTENTION["queries"]),
                e.add(e.mul(token, e.argument(ATTENTION["row_bytes"])), e.mul(query, self.nbytes)),
            )

            def feature(d: Value) -> None:
                number_ = e.b.fmul(
                    e.load(source, e.mul(d, 4), F32, align=4), e.argument(ATTENTION["scale"], F32)
                )
                e.store(
                    number_,
                    self.queries,
                    e.add(e.mul(d, self.vector_bytes), e.mul(number, 4)),
                    align=4,
                )

            e.loop(0, self.head_dim, feature)

        e.loop(0, self.width_lanes, lane)

    def block(
        self,
        keys: Value,
        values: Value,
        part: tuple[Value, Value],
        bounds: tuple[Value, Value],
        sums: tuple[Value, Value],
    ) -> Sequence[Value]:
        """Take in the keys of a part; return the largest scores and the sums so far."""
        e, floats = self.e, self.floats
        begin, end = part
        count = e.sub(end, begin)

        def score(tile: int, at: Value, largest: Value) -> Sequence[Value]:
            rows = [e.at(keys, e.mul(e.add(at, i), self.row_bytes)) for i in range(tile)]

            def feature(d: Value, *totals: Value) -> Sequence[Value]:
                query = e.load(self.queries, e.mul(d, self.vector_bytes), floats, align=4)
                spread = [
                    e.spread(e.load(row, e.mul(d, 4), F32, align=4), self.width_lanes)
                    for row in rows
                ]
                return [e.fma(key, query, total) for key, total in zip(spread, totals, strict=True)]

            for i, total in enumerate(
                e.loop(0, self.head_dim, feature, [e.const(floats, 0.0)] * tile)
            ):
                number = e.spread(e.b.trunc(e.add(begin, e.add(at, i)), I32), self.width_lanes)
                inside = e.b.and_(
                    e.b.icmp_signed("<=", bounds[0], number),
                    e.b.icmp_signed("<", number, bounds[1]),
                )
                total_ = e.b.select(inside, total, e.const(floats, _HIDDEN))
                e.store(total_, self.scores, e.mul(e.add(at, i), self.vector_bytes), align=4)
                largest = e.binary("maxnum", largest, total_)
            return [largest]

        [largest] = self.tiled(count, score, [sums[0]])

        def weigh(at: Value, total: Value) -> Sequence[Value]:
            found = e.load(self.scores, e.mul(at, self.vector_bytes), floats, align=4)
            seen = e.b.fcmp_ordered(">", found, e.const(floats, _SEEN))
            power = e.b.select(seen, exp(e, e.b.fsub(found, largest)), e.const(floats, 0.0))
            e.store(power, self.scores, e.mul(at, self.vector_bytes), align=4)
            return [e.b.fadd(total, power)]

        faded = exp(e, e.b.fsub(sums[0], largest))
        [total] = e.loop(0, count, weigh, [e.b.fmul(sums[1], faded)])

        def mix(tile: int, d: Value) -> None:
            places = [e.mul(e.add(d, i), self.vector_bytes) for i in range(tile)]
            so_far = [
                e.b.fmul(e.load(self.results, place, floats, align=4), faded) for place in places
            ]

            def key(at: Value, *totals: Value) -> Sequence[Value]:
                weight = e.load(self.scores, e.mul(at, self.vector_bytes), floats, align=4)
                row = e.at(values, e.add(e.mul(at, self.row_bytes), e.mul(d, 4)))
                spread = [
                    e.spread(e.load(row, 4 * i, F32, align=4), self.width_lanes)
                    for i in range(tile)
                ]
                return [
                    e.fma(value, weight, total) for value, total in zip(spread, totals, strict=True)
                ]

            for place, mixed in zip(places, e.loop(0, count, key, so_far), strict=True):
                e.store(mixed, self.results, place, align=4)

        self.tiled(self.head_dim, mix, [])
        return [largest, total]

    def tiled(
        self, count: Value, body: Callable[..., Sequence[Value] | None], carried: Sequence[Value]
    ) -> list[Value]:
        """``body(tile, at, ...)`` over ``count`` places in tiles, the rest one by one."""
        e = self.e
        whole = e.mul(e.div(count, _TILE), _TILE)
        carried = e.loop(
            0, whole, lambda at, *values: body(_TILE, at, *values), carried, step=_TILE
        )
        return e.loop(whole, count, lambda at, *values: body(1, at, *values), carried)

    def scatter(
        self, item: tuple[Value, Value, Value], count: Value, sums: tuple[Value, Value]
    ) -> None:
        """Results from features by lanes to a row a query; the row's end holds largest score and sum."""
        e = self.e
        head, first, split = item
        for number, value in enumerate(sums):
            e.store(value, self.scores, number * self.vector_bytes, align=4)

        def lane(number: Value) -> None:
            token, query = self.place(head, e.add(first, number))
            row = e.add(
                e.mul(e.add(e.mul(token, e.argument(ATTENTION["heads"])), query), self.splits),
                split,
            )
            target = e.at(e.address(ATTENTION["partials"]), e.mul(row, e.add(self.nbytes, 8)))

            def feature(d: Value) -> None:
                at = e.add(e.mul(d, self.vector_bytes), e.mul(number, 4))
                e.store(e.load(self.results, at, F32, align=4), target, e.mul(d, 4), align=4)

            e.loop(0, self.head_dim, feature)
            for place in (0, 1):
                found = e.load(
                    self.scores, e.add(place * self.vector_bytes, e.mul(number, 4)), F32, align=4
                )
                e.store(found, target, e.add(self.nbytes, 4 * place), align=4)

        e.loop(0, count, lane)
