"""Few tokens times a quantized weight with int8 activations, at the memory's speed: each row is read once, as it lies."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.dot import as_weights, dot, signed_weights
from edgellm.kernels.emitter import CACHE_LINE, F32, I8, I32, POINTER, Emitter, Value, ir, vector
from edgellm.kernels.isa import Isa
from edgellm.kernels.schedule import next_items
from edgellm.kernels.weights import Format, load_floats

import os
AHEAD = int(os.environ.get("AHEAD","4096"))
ITEM_ROWS = 32
"""Rows that a thread takes at once."""


def emit_matvec(isa: Isa, name: str, form: Format, rows_at_once: int) -> str:
    """out[t] (+)= sum over groups of scale * (codes . activations) * activation scale + bias * activation sum.

    Arguments: 1 codes (L, K), 2 scales (L, K/group), 3 sums (L, K/group) of the activations; 4 weight, 5 scales, 6 biases;
    7 rows, 8 groups a row, 9 out, 10 bytes from one token's results to the next's, 11 whether to add to what is there.
    """
    product = _Matvec(isa, name, form)
    return product.emit(rows_at_once)


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

        def item(number: Value) -> None:
            first = e.mul(number, ITEM_ROWS)
            stop = e.min(e.add(first, ITEM_ROWS), self.rows)
            whole = e.add(first, e.mul(e.div(e.sub(stop, first), rows_at_once), rows_at_once))
            e.loop(first, whole, lambda row: self.some(row, rows_at_once), step=rows_at_once)
            if rows_at_once > 1:
                e.loop(whole, stop, lambda row: self.some(row, 1))

        next_items(e, e.ceil_div(self.rows, ITEM_ROWS), item)
        return e.finish()

    def some(self, row: Value, count: int) -> None:
        """A few rows times every token."""
        self.e.loop(0, self.tokens, lambda token: self.products(row, count, token))

    def products(self, row: Value, count: int, token: Value) -> None:
        """A few rows times one token."""
        e, lanes, small = self.e, self.isa.lanes, self.small
        codes = e.at(self.codes, e.mul(token, self.columns))
        a_scales, a_sums = (e.at(x, e.mul(token, e.mul(self.groups, 4))) for x in (self.a_scales, self.a_sums))
        weights = [e.at(self.weight, e.mul(e.add(row, i), self.row_bytes)) for i in range(count)]
        scales, biases = (
            [e.at(x, e.mul(e.add(row, i), self.scale_bytes)) for i in range(count)] for x in (self.scales, self.biases)
        )
        whole = e.mul(e.div(self.groups, self.block), self.block)

        def blocks(group: Value, *totals: Value) -> Sequence[Value]:
            a_scale, a_sum = (e.load(x, e.mul(group, 4), vector(F32, self.block)) for x in (a_scales, a_sums))
            results: list[Value] = []
            for i in range(count):
                self.ask_ahead(weights[i], group)
                scale, bias = (
                    load_floats(e, x[i], e.mul(group, self.form.item_bytes), self.form.kind, self.block)
                    for x in (scales, biases)
                )
                results += self.scaled_block(codes, weights[i], group, scale, bias, (a_scale, a_sum), totals[2 * i : 2 * i + 2])
            return results

        zero = [e.const(vector(F32, lanes), 0.0), e.const(vector(F32, self.block), 0.0)] * count
        totals = e.loop(0, whole, blocks, zero, step=self.block)

        def single(group: Value, *totals: Value) -> Sequence[Value]:
            a_scale, a_sum = (e.load(x, e.mul(group, 4), vector(F32, 1)) for x in (a_scales, a_sums))
            results: list[Value] = []
            for i in range(count):
                scale, bias = (
                    load_floats(e, x[i], e.mul(group, self.form.item_bytes), self.form.kind, 1) for x in (scales, biases)
                )
                bias = self.mended(scale, bias)
                ints = self.ints(codes, weights[i], group, 0, small)
                spread = e.shuffle(e.b.fmul(scale, a_scale), [0] * small)
                results.append(e.fma(e.b.sitofp(ints, vector(F32, small)), spread, totals[2 * i]))
                results.append(e.fma(bias, a_sum, totals[2 * i + 1]))
            return results

        rest = e.loop(whole, self.groups, single, [e.const(vector(F32, n), 0.0) for n in (small, 1)] * count)
        for i in range(count):
            result = e.b.fadd(e.sum(totals[2 * i]), e.sum(totals[2 * i + 1]))
            tail = e.b.fadd(e.sum(rest[2 * i]), e.b.extract_element(rest[2 * i + 1], ir.Constant(I32, 0)))
            self.put(e.b.fadd(result, tail), token, e.add(row, i))

    def ask_ahead(self, weight: Value, group: Value) -> None:
        """Prefetch what a block of groups further on will need: the processor's own prefetcher stops at each page."""
        nbytes = self.form.group * self.form.bits // 8
        for line in range(0, self.block * nbytes, CACHE_LINE):
            self.e.prefetch(weight, self.e.add(self.e.mul(group, nbytes), AHEAD + line))

    @property
    def small(self) -> int:
        """32-bit lanes of one group's products."""
        return min(self.isa.lanes, self.form.group * self.form.bits // 32)

    def scaled_block(
        self, codes: Value, weight: Value, group: Value, scale: Value, bias: Value, activations: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        """The running sums of a row, with a block of groups added."""
        e, lanes = self.e, self.isa.lanes
        total, offset = totals
        bias = self.mended(scale, bias)
        scale = e.b.fmul(scale, activations[0])
        per_group = self.form.group * self.form.bits // 32
        for unit in range(self.block * max(per_group, lanes) // max(per_group, lanes) if per_group >= lanes else self.block * per_group // lanes):
            first = unit if per_group >= lanes else unit * lanes // per_group
            ints = self.ints(codes, weight, group, unit * (max(per_group, lanes)) // 1, lanes)
            places = [first + (lane // per_group if per_group < lanes else 0) for lane in range(lanes)]
            total = e.fma(e.b.sitofp(ints, vector(F32, lanes)), e.shuffle(scale, places), total)
        return [total, e.fma(bias, activations[1], offset)]

    def ints(self, codes: Value, weight: Value, group: Value, start: int, lanes: int) -> Value:
        """Products of the weights from ``group`` and ``start`` words (4 bytes) on, summed in ``lanes`` lanes.

        A group that is wider than the lanes is summed in several rounds.
        """
        e, form = self.e, self.form
        per_group = form.group * form.bits // 32
        rounds = max(1, per_group // lanes)
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

    def mended(self, scale: Value, bias: Value) -> Value:
        """The bias, for codes taken as q - 128."""
        if not signed_weights(self.e, self.form.bits):
            return bias
        return self.e.fma(scale, self.e.const(scale.type, 128.0), bias)

    def put(self, value: Value, token: Value, row: Value) -> None:
        """Write or add a result."""
        e = self.e
        at = e.add(e.mul(token, self.stride), e.mul(row, 4))
        there = e.load(self.out, at, F32, align=4)
        there = e.b.select(e.less(0, self.adds), there, e.const(F32, 0.0))
        e.store(e.b.fadd(value, there), self.out, at, align=4)
