"""Few tokens times a quantized weight with int8 activations, a group's products in one tile of integers (AMX).

Integers are exact and the float32 sums have the order of ``matvec``, so every result is bit for bit
what one token alone gets. The time hardly depends on how many of the 16 tokens there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from edgellm.kernels.codegen.abi import TILE, TILE_GROUPS, TILE_PARTS
from edgellm.kernels.codegen.emitter import (
    CACHE_LINE,
    F32,
    I8,
    I16,
    I32,
    VOID,
    Emitter,
    Value,
    vector,
)
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items
from edgellm.kernels.codegen.unpack import load_floats
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.amx_matmul import configure, tile

_SIDE = 64
"""Bytes of a tile's row."""

_ALL = 64 * TILE
"""Bytes of a tile."""

_APART = 2
"""Groups between unpacking, products and sums: what was just stored cannot be loaded as a tile at once, nor a tile's rows."""


def emit_tile_matvec(isa: Isa, name: str, form: WeightFormat) -> str:
    """Arguments as ``emit_int8_matvec`` has them, for up to 16 tokens and at least 16 rows.

    Activations are packed: 1 words of four codes (K/4, 16), 2 scales (K/group, 16), 3 sums
    (K/group, 16).
    """
    return _TileMatvec(isa, name, form).emit()


class _TileMatvec:
    def __init__(self, isa: Isa, name: str, form: WeightFormat) -> None:
        self.e = e = Emitter(isa, name)
        self.isa, self.form, self.block = isa, form, isa.block
        self.floats = vector(F32, TILE)
        self.inputs, self.a_scales, self.a_sums, self.weight, self.scales, self.biases = (
            e.address(number) for number in range(1, 7)
        )
        self.rows, self.groups = e.argument(7), e.argument(8)
        self.out, self.stride, self.adds, self.taken = (
            e.address(9),
            e.argument(10),
            e.argument(11),
            e.argument(12),
        )
        self.tokens = e.tokens
        self.width = min(_SIDE, form.group)
        """Codes that a tile takes of each row."""
        self.group_bytes = form.group * form.bits // 8
        self.row_bytes = e.mul(self.groups, self.group_bytes)
        self.scale_bytes = e.mul(self.groups, form.item_bytes)
        self.whole = e.mul(e.div(self.groups, self.block), self.block)
        parts, at = {}, e.scratch
        for part, nbytes in TILE_PARTS.items():
            parts[part] = at
            at = e.at(at, nbytes)
        self.unpacked, self.ints, self.sums, self.results = (
            parts[part] for part in ("codes", "ints", "sums", "results")
        )
        self.factors = at  # scales of a block of groups (16, block), their biases; the next block's

    def emit(self) -> str:
        e = self.e
        configure(e, inner=self.width)

        def item(number: Value) -> None:
            first = e.mul(number, self.taken)
            stop = e.min(e.add(first, self.taken), self.rows)
            start = e.min(first, e.sub(self.rows, TILE))
            self.ask((self.weight,), e.mul(start, self.row_bytes), e.mul(self.row_bytes, TILE))
            e.loop(first, stop, lambda row: self.rows_of(row, stop), step=TILE)

        next_items(e, e.ceil_div(self.rows, self.taken), item)
        e.call("llvm.x86.tilerelease", VOID, [])
        return e.finish()

    def rows_of(self, first: Value, stop: Value) -> None:
        """Up to 16 rows. Where fewer are left the tile begins earlier, and what is known already is not written again."""
        e = self.e
        start = e.min(first, e.sub(self.rows, TILE))
        weight = e.at(self.weight, e.mul(start, self.row_bytes))
        more = e.b.select(e.less(e.add(first, TILE), stop), e.index(TILE), e.index(0))
        following = e.at(weight, e.mul(more, self.row_bytes))
        self.prepare(start)
        self.ask(
            (self.scales, self.biases),
            e.mul(e.add(start, more), self.scale_bytes),
            e.mul(more, self.scale_bytes),
        )
        for number in range(self.block * TILE):
            e.store(e.const(self.floats, 0.0), self.sums, number * _SIDE)
        for turn in range(_APART):
            self.unpack(weight, e.min(e.index(turn), e.sub(self.groups, 1)), turn)

        def few(group: Value) -> None:
            for turn in range(TILE_GROUPS):
                now = e.add(group, turn)
                self.ask_ahead(following, now)
                self.unpack(
                    weight,
                    e.min(e.add(now, _APART), e.sub(self.groups, 1)),
                    (turn + _APART) % TILE_GROUPS,
                )
                self.multiply(weight, now, turn)
                known = turn >= _APART or e.less(0, group)
                before = (
                    e.sub(now, _APART)
                    if known is True
                    else e.b.select(known, e.sub(now, _APART), e.index(0))
                )
                target = e.at(self.sums, e.mul(e.rem(before, self.block), _ALL))
                target = target if known is True else e.b.select(known, target, self.results)
                self.plus(before, (turn - _APART) % TILE_GROUPS, target)

        e.loop(0, self.whole, few, step=TILE_GROUPS)

        def ends() -> None:
            for back in range(_APART, 0, -1):
                sums = e.at(self.sums, (self.block - back) * _ALL)
                self.plus(e.sub(self.whole, back), -back % TILE_GROUPS, sums)

        e.when(e.less(0, self.whole), ends)
        self.halve()

        def single(group: Value) -> None:
            self.unpack(weight, group, 0)
            self.multiply(weight, group, 0)
            self.plus(group, 0, self.results)

        e.loop(self.whole, self.groups, single)
        self.write(start, first, e.min(stop, e.add(first, TILE)))

    def prepare(self, start: Value) -> None:
        """Scales and biases of 16 rows as float32, so that those of a group lie a fixed way apart."""
        e, form, block = self.e, self.form, self.block

        def of_row(row: Value) -> None:
            begin = e.mul(e.add(start, row), self.scale_bytes)
            for part, base in enumerate((self.scales, self.biases)):
                source, target = (
                    e.at(base, begin),
                    e.at(self.factors, e.mul(e.add(row, part * TILE), 4 * block)),
                )

                def some(
                    group: Value, lanes: int, source: Value = source, target: Value = target
                ) -> None:
                    numbers = load_floats(
                        e, source, e.mul(group, form.item_bytes), form.kind, lanes
                    )
                    e.store(numbers, target, self.factor_place(group))

                e.loop(0, self.whole, lambda group, some=some: some(group, block), step=block)
                e.loop(self.whole, self.groups, lambda group, some=some: some(group, 1))

        e.loop(0, TILE, of_row)

    def factor_place(self, group: Value) -> Value:
        """Bytes from the first row's factors to those of a group."""
        e, block = self.e, self.block
        return e.add(
            e.mul(e.div(group, block), 2 * 4 * TILE * block), e.mul(e.rem(group, block), 4)
        )

    def ask_ahead(self, following: Value, group: Value) -> None:
        """Prefetch the part of the next rows that stands where this group stands among the bytes of these."""
        e, nbytes = self.e, TILE * self.group_bytes
        e.prefetch(following, e.mul(group, nbytes), nbytes, ahead=0)

    def ask(self, bases: Sequence[Value], begin: Value, nbytes: Value) -> None:
        """Prefetch some bytes of each base at once."""
        e = self.e

        def line(place: Value) -> None:
            for base in bases:
                e.prefetch(base, e.add(begin, place), CACHE_LINE, ahead=0)

        e.loop(0, nbytes, line, step=CACHE_LINE)

    def unpack(self, weight: Value, group: Value, turn: int) -> None:
        """4-bit codes of a group as bytes: of each tile's width first the low halves, then the high ones."""
        if self.form.bits == 8:
            return
        e, half = self.e, self.width // 2
        pairs = vector(I16, half)
        shifts = e.lanes(I16, [0] * (half // 2) + [4] * (half // 2))
        for row in range(TILE):
            source = e.at(weight, e.add(e.mul(self.row_bytes, row), e.mul(group, self.group_bytes)))
            for step in range(self.form.group // self.width):
                packed = e.load(source, step * half, vector(I8, half))
                twice = e.b.bitcast(
                    e.b.lshr(e.b.bitcast(e.join([packed, packed]), pairs), shifts),
                    vector(I8, 2 * half),
                )
                place = turn * TILE_PARTS["codes"] // TILE_GROUPS + step * _ALL + row * _SIDE
                e.store(e.b.and_(twice, e.const(twice.type, 15)), self.unpacked, place)

    def multiply(self, weight: Value, group: Value, turn: int) -> None:
        """A group's products, summed (16 rows, 16 tokens)."""
        e = self.e
        total, left, right = (3 * (turn % 2) + number for number in range(3))
        tile(e, "tilezero", total)
        for step in range(self.form.group // self.width):
            if self.form.bits == 8:
                source = e.at(weight, e.add(e.mul(group, self.group_bytes), step * self.width))
                tile(e, "tileloadd64", left, source, self.row_bytes)
            else:
                place = turn * TILE_PARTS["codes"] // TILE_GROUPS + step * _ALL
                tile(e, "tileloadd64", left, e.at(self.unpacked, place), e.index(_SIDE))
            first = e.add(e.mul(group, self.form.group * TILE), step * self.width * TILE)
            tile(e, "tileloadd64", right, e.at(self.inputs, first), e.index(_SIDE))
            tile(e, "tdpbusd", total, e.const(I8, left), e.const(I8, right))
        tile(e, "tilestored64", total, e.at(self.ints, turn * _ALL), e.index(_SIDE))

    def plus(self, group: Value, turn: int, sums: Value) -> None:
        """Running sums (16 rows, 16 tokens) with a group's products added, as ``matvec`` adds them."""
        e = self.e
        a_scale, a_sum = (
            e.load(base, e.mul(group, _SIDE), self.floats) for base in (self.a_scales, self.a_sums)
        )
        factors = e.at(self.factors, self.factor_place(group))
        for row in range(TILE):
            scale, bias = (
                e.spread(e.load(factors, 4 * self.block * (part * TILE + row), F32, align=4), TILE)
                for part in (0, 1)
            )
            total = e.load(sums, row * _SIDE, self.floats)
            ints = e.b.sitofp(
                e.load(self.ints, turn * _ALL + row * _SIDE, vector(I32, TILE)), self.floats
            )
            e.store(
                e.fma(ints, e.b.fmul(scale, a_scale), e.fma(bias, a_sum, total)), sums, row * _SIDE
            )

    def halve(self) -> None:
        """The block's sums become results, one half added to the other until one is left."""
        e = self.e
        for row in range(TILE):
            parts = [
                e.load(self.sums, number * _ALL + row * _SIDE, self.floats)
                for number in range(self.block)
            ]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [e.b.fadd(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
            e.store(parts[0], self.results, row * _SIDE)

    def write(self, start: Value, first: Value, end: Value) -> None:
        """Results from a row's tokens to a token's rows; those from ``first`` to before ``end`` are wanted."""
        e = self.e
        columns = e.transposed(
            [e.load(self.results, row * _SIDE, self.floats) for row in range(TILE)]
        )
        for number, column in enumerate(columns):
            e.store(column, self.results, number * _SIDE)
        skipped, count = e.sub(first, start), e.sub(end, start)
        whole, adds = (
            e.b.icmp_signed("==", e.sub(count, skipped), e.index(TILE)),
            e.less(0, self.adds),
        )

        def put(source: Value, target: Value, place: Value, lanes: int, *, add: bool) -> None:
            at, kind = e.mul(place, 4), vector(F32, lanes)
            there = e.load(target, at, kind) if add else e.const(kind, 0.0)
            e.store(e.b.fadd(e.load(source, at, kind), there), target, at)

        def every(*, whole: bool, add: bool) -> None:
            def token(number: Value) -> None:
                source = e.at(self.results, e.mul(number, _SIDE))
                target = e.at(self.out, e.add(e.mul(number, self.stride), e.mul(start, 4)))
                if whole:
                    put(source, target, e.index(0), TILE, add=add)
                else:
                    e.loop(skipped, count, lambda place: put(source, target, place, 1, add=add))

            e.loop(0, self.tokens, token)

        for is_whole, wide in ((whole, True), (e.b.not_(whole), False)):
            for is_added, add in ((adds, True), (e.b.not_(adds), False)):
                e.when(e.b.and_(is_whole, is_added), partial(every, whole=wide, add=add))
