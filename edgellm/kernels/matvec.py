"""Few tokens times a quantized weight with int8 activations, at the memory's speed: each row is read once, as it lies."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.dot import as_weights, dot, signed_weights
from edgellm.kernels.emitter import F32, I8, I32, Emitter, Value, vector
from edgellm.kernels.form import Format
from edgellm.kernels.isa import Isa
from edgellm.kernels.schedule import next_items
from edgellm.kernels.unpack import load_floats

_ROWS_AT_ONCE = {4: 4, 8: 2}
"""Rows that are summed side by side, by the bits of a code: as many streams as memory serves best (measured: 25.1 ms instead of
26.4 a token for 4 bits; 8 bits lose by it)."""


def emit_int8_matvec(isa: Isa, name: str, form: Format) -> str:
    """out[t] (+)= sum over groups of scale * (codes . activations) * activation scale + bias * activation sum.

    Arguments: 1 codes (L, K), 2 scales (L, K/group), 3 sums (L, K/group) of the activations; 4 weight, 5 scales, 6 biases;
    7 rows, 8 groups a row, 9 out, 10 bytes from one token's results to the next's, 11 whether to add to what is there,
    12 rows that a thread takes at once.
    """
    return _Matvec(isa, name, form).emit(_ROWS_AT_ONCE[form.bits])


class _Matvec:
    def __init__(self, isa: Isa, name: str, form: Format) -> None:
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
        self.block = max(isa.lanes // 2, 4)
        """Groups whose scales are read at once."""

    def emit(self, rows_at_once: int) -> str:
        e = self.e
        taken = e.argument(12)

        def item(number: Value) -> None:
            first = e.mul(number, taken)
            stop = e.min(e.add(first, taken), self.rows)
            whole = e.add(first, e.mul(e.div(e.sub(stop, first), rows_at_once), rows_at_once))
            e.loop(first, whole, lambda row: self.some(row, rows_at_once), step=rows_at_once)
            if rows_at_once > 1:
                e.loop(whole, stop, lambda row: self.some(row, 1))

        next_items(e, e.ceil_div(self.rows, taken), item)
        return e.finish()

    def some(self, row: Value, count: int) -> None:
        """A few rows times every token."""
        self.e.loop(0, self.tokens, lambda token: self.products(row, count, token))

    def products(self, row: Value, count: int, token: Value) -> None:
        """A few rows times one token."""
        e, form, small = self.e, self.form, self.small
        codes = e.at(self.codes, e.mul(token, self.columns))
        a_scales, a_sums = (e.at(x, e.mul(token, e.mul(self.groups, 4))) for x in (self.a_scales, self.a_sums))
        weights = [e.at(self.weight, e.mul(e.add(row, i), self.row_bytes)) for i in range(count)]
        factors = [[e.at(x, e.mul(e.add(row, i), self.scale_bytes)) for x in (self.scales, self.biases)] for i in range(count)]
        whole = e.mul(e.div(self.groups, self.block), self.block)

        def read(group: Value, i: int, groups: int) -> tuple[Value, Value, Value]:
            """Scales times those of the activations, biases, and sums of the activations."""
            a_scale, a_sum = (e.load(x, e.mul(group, 4), vector(F32, groups)) for x in (a_scales, a_sums))
            scale, bias = (load_floats(e, x, e.mul(group, form.item_bytes), form.kind, groups) for x in factors[i])
            if signed_weights(e, form.bits):
                bias = e.fma(scale, e.const(scale.type, 128.0), bias)
            return e.b.fmul(scale, a_scale), bias, a_sum

        def blocks(group: Value, *totals: Value) -> Sequence[Value]:
            results: list[Value] = []
            for i in range(count):
                self.ask_ahead(weights[i], group)
                scale, bias, a_sum = read(group, i, self.block)
                results.append(self.scaled(codes, weights[i], group, scale, totals[2 * i]))
                results.append(e.fma(bias, a_sum, totals[2 * i + 1]))
            return results

        def single(group: Value, *results: Value) -> Sequence[Value]:
            sums = []
            for i in range(count):
                scale, bias, a_sum = read(group, i, 1)
                ints = e.b.sitofp(self.ints(codes, weights[i], group, 0, small), vector(F32, small))
                product = e.sum(e.fma(ints, e.shuffle(scale, [0] * small), e.const(vector(F32, small), 0.0)))
                sums.append(e.b.fadd(e.b.fadd(results[i], product), e.sum(e.b.fmul(bias, a_sum))))
            return sums

        lanes = self.isa.lanes
        zeros = [e.const(vector(F32, number), 0.0) for number in (lanes, self.block)] * count
        totals = e.loop(0, whole, blocks, zeros, step=self.block)
        results = []
        for i in range(count):
            total, offset = totals[2 * i : 2 * i + 2]
            for start in range(0, lanes, self.block):  # one sum of a row's lanes, not two
                offset = e.b.fadd(offset, e.part(total, start, self.block))
            results.append(e.sum(offset))
        for i, result in enumerate(e.loop(whole, self.groups, single, results)):
            self.put(result, token, e.add(row, i))

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

    def scaled(self, codes: Value, weight: Value, group: Value, scale: Value, total: Value) -> Value:
        """A row's running sums, with a block of groups added."""
        e, lanes, words = self.e, self.isa.lanes, self.group_words
        unit = max(words, lanes)
        for start in range(0, self.block * words, unit):
            ints = e.b.sitofp(self.ints(codes, weight, group, start, lanes), vector(F32, lanes))
            places = [(start + lane * (unit // lanes)) // words for lane in range(lanes)]
            total = e.fma(ints, e.shuffle(scale, places), total)
        return total

    def ints(self, codes: Value, weight: Value, group: Value, start: int, lanes: int) -> Value:
        """Products of the weights from ``group`` and ``start`` words (4 bytes) on, summed in ``lanes`` lanes.

        A group that is wider than the lanes is summed in several rounds.
        """
        e, form = self.e, self.form
        rounds = max(1, self.group_words // lanes)
        kind = vector(I8, 4 * lanes)
        total = e.const(vector(I32, lanes), 0)
        for turn in range(rounds):
            at = e.add(e.mul(group, form.group * form.bits // 8), 4 * (start + turn * lanes))
            packed = e.load(weight, at, kind)
            if form.bits == 8:
                total = dot(e, total, as_weights(e, packed, 8), e.load(codes, at, kind), 8)
                continue
            low, high = e.b.and_(packed, e.const(kind, 15)), e.b.lshr(packed, e.const(kind, 4))
            total = dot(e, total, low, e.load(codes, at, kind), 4)
            total = dot(e, total, high, e.load(codes, e.add(at, e.b.lshr(self.columns, e.index(1))), kind), 4)
        return total

    def put(self, value: Value, token: Value, row: Value) -> None:
        """Write or add a result."""
        e = self.e
        at = e.add(e.mul(token, self.stride), e.mul(row, 4))
        there = e.load(self.out, at, F32, align=4)
        there = e.b.select(e.less(0, self.adds), there, e.const(F32, 0.0))
        e.store(e.b.fadd(value, there), self.out, at, align=4)
