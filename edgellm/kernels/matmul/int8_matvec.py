"""Few tokens times a quantized weight with int8 activations, at the memory's speed: each row is read once, as it lies.

A row of results does not depend on the tokens beside it: a group's products are summed exactly, in
integers, and the groups' sums are added in an order that every kernel of few tokens has
(``tile_matvec`` too): groups that are ``isa.block`` apart one after the other, then those sums by
halves, then the groups that are left over.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.dot import as_weights, dot, signed_weights
from edgellm.kernels.codegen.emitter import F32, I8, I32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items
from edgellm.kernels.codegen.unpack import load_rows
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.group_sums import Sums, one_lane_a_group

_ROWS_AT_ONCE = {4: 4, 8: 2}
"""Rows that are summed side by side, by the bits of a code: as many streams as memory serves best (measured: 25.1 ms instead of
26.4 a token for 4 bits; 8 bits lose by it)."""


def emit_int8_matvec(isa: Isa, name: str, form: WeightFormat) -> str:
    """out[t] (+)= sum over groups of scale * (codes . activations) * activation scale + bias * activation sum.

    Arguments: 1 codes (L, K), 2 scales (L, K/group), 3 sums (L, K/group) of the activations; 4
        weight, 5 scales, 6 biases; 7 rows, 8 groups a row, 9 out, 10 bytes from one token's results
        to the next's, 11 whether to add to what is there, 12 rows that a thread takes at once.
    """
    return _Matvec(isa, name, form).emit(_ROWS_AT_ONCE[form.bits], 1)


def emit_int8_few(isa: Isa, name: str, form: WeightFormat) -> str:
    """The same for several tokens: codes are unpacked once for up to four of them, whose sums are held side by side."""
    return _Matvec(isa, name, form).emit(*((4, 4) if isa.registers == 32 else (2, 2)))


class _Matvec:
    def __init__(self, isa: Isa, name: str, form: WeightFormat) -> None:
        self.e = e = Emitter(isa, name)
        self.isa, self.form = isa, form
        self.codes, self.a_scales, self.a_sums, self.weight, self.scales, self.biases = (
            e.address(number) for number in range(1, 7)
        )
        self.rows, self.groups = e.argument(7), e.argument(8)
        self.out, self.stride, self.adds = e.address(9), e.argument(10), e.argument(11)
        self.tokens = e.tokens
        self.columns = e.mul(self.groups, form.group)
        self.row_bytes = e.mul(self.groups, form.group * form.bits // 8)
        self.scale_bytes = e.mul(self.groups, form.item_bytes)
        self.block = isa.block
        self.whole = e.mul(e.div(self.groups, self.block), self.block)

    def emit(self, rows_at_once: int, tokens_at_once: int) -> str:
        e = self.e
        taken = e.argument(12)

        def item(number: Value) -> None:
            first = e.mul(number, taken)
            stop = e.min(e.add(first, taken), self.rows)
            whole = e.add(first, e.mul(e.div(e.sub(stop, first), rows_at_once), rows_at_once))
            e.loop(
                first,
                whole,
                lambda row: self.some(row, rows_at_once, tokens_at_once),
                step=rows_at_once,
            )
            e.loop(whole, stop, lambda row: self.some(row, 1, 1))

        next_items(e, e.ceil_div(self.rows, taken), item)
        return e.finish()

    def some(self, row: Value, rows: int, tokens: int) -> None:
        """A few rows times every token, so many of these at once, and the rest by halves."""
        e, begin = self.e, self.e.index(0)
        while tokens:
            end = e.add(begin, e.mul(e.div(e.sub(self.tokens, begin), tokens), tokens))
            e.loop(
                begin,
                end,
                lambda token, count=tokens: self.products(row, rows, token, count),
                step=tokens,
            )
            begin, tokens = end, tokens // 2

    def products(self, row: Value, rows: int, token: Value, tokens: int) -> None:
        """A few rows times a few tokens."""
        e = self.e
        side = self.isa.lanes // self.block if rows > 1 else 1  # rows that share a vector of sums
        beside = e.mul(self.groups, 4)
        inputs = [
            tuple(
                e.at(base, e.mul(e.add(token, t), nbytes))
                for base, nbytes in (
                    (self.codes, self.columns),
                    (self.a_scales, beside),
                    (self.a_sums, beside),
                )
            )
            for t in range(tokens)
        ]
        places = [
            tuple(
                e.at(base, e.mul(e.add(row, i), nbytes))
                for base, nbytes in (
                    (self.weight, self.row_bytes),
                    (self.scales, self.scale_bytes),
                    (self.biases, self.scale_bytes),
                )
            )
            for i in range(rows)
        ]
        sides = [places[start : start + side] for start in range(0, rows, side)]

        def blocks(group: Value, *totals: Value) -> Sequence[Value]:
            for weight, *_ in places:
                self.ask_ahead(weight, group)
            results: list[Value] = []
            for number, members in enumerate(sides):
                some = totals[number * tokens : (number + 1) * tokens]
                results += self.added(members, inputs, group, some)
            return results

        zero = e.const(vector(F32, side * self.block), 0.0)
        totals = e.loop(0, self.whole, blocks, [zero] * (len(sides) * tokens), step=self.block)
        by_row = [
            e.halved(e.part(totals[i // side * tokens + t], i % side * self.block, self.block))
            for i in range(rows)
            for t in range(tokens)
        ]
        ends = e.loop(
            self.whole,
            self.groups,
            lambda group, *results: self.single(places, inputs, group, results),
            by_row,
        )
        for number, result in enumerate(ends):
            self.put(result, e.add(token, number % tokens), e.add(row, number // tokens))

    def factors(
        self, members: Sequence[Sequence[Value]], group: Value, count: int
    ) -> tuple[Value, Value]:
        """Scales and biases of ``count`` groups of some rows, end to end."""
        e, form = self.e, self.form
        at = e.mul(group, form.item_bytes)
        scale, bias = (
            load_rows(e, [member[part] for member in members], at, form.kind, count)
            for part in (1, 2)
        )
        if signed_weights(e, form.bits):
            bias = e.fma(scale, e.const(scale.type, 128.0), bias)
        return scale, bias

    def added(
        self,
        members: Sequence[Sequence[Value]],
        inputs: Sequence[Sequence[Value]],
        group: Value,
        totals: Sequence[Value],
    ) -> list[Value]:
        """The running sums of rows that share a vector, one a token, with a block of groups added."""
        e, lanes, block = self.e, self.isa.lanes, self.block
        scale, bias = self.factors(members, group, block)
        row_leaves = block * self.small // lanes
        codes = [own[0] for own in inputs]

        def leaf(number: int) -> Sums:
            member, place = divmod(number, row_leaves)
            first = place * (lanes // self.small)
            words = self.ints(codes, members[member][0], e.add(group, first), lanes)
            return Sums(
                words, [member * block + first + lane // self.small for lane in range(lanes)]
            )

        sums = one_lane_a_group(e, leaf, row_leaves * len(members))
        results = []
        for own, ints, total in zip(inputs, sums, totals, strict=True):
            a_scale, a_sum = (
                e.join([e.load(x, e.mul(group, 4), vector(F32, block))] * len(members))
                for x in own[1:]
            )
            results.append(self.plus(ints, (scale, bias), (a_scale, a_sum), total))
        return results

    def plus(
        self,
        ints: Value,
        factors: tuple[Value, Value],
        of_activations: tuple[Value, Value],
        total: Value,
    ) -> Value:
        """Running sums with some groups' products added, in the one order and rounding that all kernels have."""
        e, (scale, bias), (a_scale, a_sum) = self.e, factors, of_activations
        return e.fma(
            e.b.sitofp(ints, total.type), e.b.fmul(scale, a_scale), e.fma(bias, a_sum, total)
        )

    def single(
        self,
        places: Sequence[Sequence[Value]],
        inputs: Sequence[Sequence[Value]],
        group: Value,
        results: Sequence[Value],
    ) -> list[Value]:
        """Results, one a row and token, with one group added."""
        e, found = self.e, []
        for number, place in enumerate(places):
            factors = self.factors([place], group, 1)
            words = self.ints([own[0] for own in inputs], place[0], group, self.small)
            for t, own in enumerate(inputs):
                total = e.spread(e.sum(words[t]), 1)
                a_scale, a_sum = (e.load(x, e.mul(group, 4), vector(F32, 1)) for x in own[1:])
                found.append(
                    self.plus(total, factors, (a_scale, a_sum), results[number * len(inputs) + t])
                )
        return found

    def ask_ahead(self, weight: Value, group: Value) -> None:
        """Prefetch what a block of groups further on will need."""
        nbytes = 4 * self.group_words
        self.e.prefetch(weight, self.e.mul(group, nbytes), self.block * nbytes)

    @property
    def group_words(self) -> int:
        """Words (4 bytes) of codes in a group: the 32-bit sums that its products make."""
        return self.form.group * self.form.bits // 32

    @property
    def small(self) -> int:
        """Lanes that the sums of one group fill."""
        return min(self.isa.lanes, self.group_words)

    def ints(self, codes: Sequence[Value], weight: Value, group: Value, lanes: int) -> list[Value]:
        """Products of the weights from ``group`` on with each token's codes, summed in ``lanes`` lanes.

        A group that is wider than the lanes is summed in several rounds.
        """
        e, form = self.e, self.form
        kind = vector(I8, 4 * lanes)
        totals = [e.const(vector(I32, lanes), 0)] * len(codes)
        begin = e.mul(group, form.group * form.bits // 8)
        half = e.b.lshr(self.columns, e.index(1))
        for turn in range(max(1, self.group_words // lanes)):
            at = e.add(begin, 4 * turn * lanes)
            packed = e.load(weight, at, kind)
            if form.bits == 8:
                parts = [(as_weights(e, packed, 8), at)]
            else:
                low, high = e.b.and_(packed, e.const(kind, 15)), e.b.lshr(packed, e.const(kind, 4))
                parts = [(low, at), (high, e.add(at, half))]
            for weights, place in parts:
                totals = [
                    dot(e, total, weights, e.load(own, place, kind), form.bits)
                    for own, total in zip(codes, totals, strict=True)
                ]
        return totals

    def put(self, value: Value, token: Value, row: Value) -> None:
        """Write or add a result."""
        e = self.e
        at = e.add(e.mul(token, self.stride), e.mul(row, 4))
        there = e.load(self.out, at, value.type, align=4)
        there = e.b.select(e.less(0, self.adds), there, e.const(value.type, 0.0))
        e.store(e.b.fadd(value, there), self.out, at, align=4)
