"""Few tokens times a weight of any form, in float32: what every machine has."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.emitter import F32, Emitter, Value, vector
from edgellm.kernels.form import Format
from edgellm.kernels.isa import Isa
from edgellm.kernels.schedule import next_items
from edgellm.kernels.unpack import codes, load_float, load_floats

_STRIDE = 32
"""Codes that are unpacked in one round; every group is a multiple of it."""

_SUMS = 4
"""Sums of plain numbers that are kept side by side, since each addition waits for the one before."""


def emit_float_matvec(isa: Isa, name: str, form: Format) -> str:
    """out[t] (+)= weight . x[t].

    Arguments: 1 x (L, K) float32; 4 weight, 5 scales, 6 biases, 7 rows, 8 columns, 9 out, 10 bytes from one token's results to
    the next's, 11 whether to add to what is there, 12 rows that a thread takes at once.
    """
    e = Emitter(isa, name)
    x, weight, scales, biases = (e.address(number) for number in (1, 4, 5, 6))
    rows, columns, out = e.argument(7), e.argument(8), e.address(9)
    stride, adds, taken = e.argument(10), e.argument(11), e.argument(12)
    unit = 8 * form.item_bytes if form.dense else form.bits
    row_bytes = e.b.lshr(e.mul(columns, unit), e.index(3))

    def one(row: Value, token: Value) -> None:
        source, inputs = e.at(weight, e.mul(row, row_bytes)), e.at(x, e.mul(token, e.mul(columns, 4)))
        if form.dense:
            total = _plain(e, form, source, inputs, columns)
        else:
            groups = e.div(columns, form.group)
            at = e.mul(e.mul(row, groups), form.item_bytes)
            total = _coded(e, form, (source, e.at(scales, at), e.at(biases, at)), inputs, groups)
        place = e.add(e.mul(token, stride), e.mul(row, 4))
        there = e.b.select(e.less(0, adds), e.load(out, place, F32, align=4), e.const(F32, 0.0))
        e.store(e.b.fadd(total, there), out, place, align=4)

    def item(number: Value) -> None:
        first = e.mul(number, taken)
        stop = e.min(e.add(first, taken), rows)
        e.loop(first, stop, lambda row: e.loop(0, e.tokens, lambda token: one(row, token)))

    next_items(e, e.ceil_div(rows, taken), item)
    return e.finish()


def _coded(e: Emitter, form: Format, row: tuple[Value, Value, Value], inputs: Value, groups: Value) -> Value:
    """The product of a row of codes, with its scales and biases."""
    source, *factors = row
    lanes = max(8, e.isa.lanes)
    floats = vector(F32, lanes)

    def group(number: Value, *totals: Value) -> Sequence[Value]:
        scale, bias = (e.spread(load_float(e, x, e.mul(number, form.item_bytes), form.kind), lanes) for x in factors)

        def some(place: Value, *sums: Value) -> Sequence[Value]:
            first = e.add(e.mul(number, form.group), place)
            found = codes(e, source, e.b.lshr(e.mul(first, form.bits), e.index(3)), form.bits, _STRIDE)
            results = []
            for part, so_far in enumerate(sums):
                numbers = e.b.uitofp(e.part(found, part * lanes, lanes), floats)
                there = e.load(inputs, e.mul(e.add(first, part * lanes), 4), floats)
                results.append(e.fma(e.fma(numbers, scale, bias), there, so_far))
            return results

        return e.loop(0, form.group, some, totals, step=_STRIDE)

    totals = e.loop(0, groups, group, [e.const(floats, 0.0)] * (_STRIDE // lanes))
    return _together(e, totals)


def _plain(e: Emitter, form: Format, source: Value, inputs: Value, columns: Value) -> Value:
    """The product of a row of plain numbers."""
    lanes = e.isa.lanes
    whole = e.mul(e.div(columns, lanes * _SUMS), lanes * _SUMS)

    def add(place: Value, count: int, so_far: Value) -> Value:
        numbers = load_floats(e, source, e.mul(place, form.item_bytes), form.kind, count)
        return e.fma(numbers, e.load(inputs, e.mul(place, 4), vector(F32, count)), so_far)

    def some(place: Value, *sums: Value) -> Sequence[Value]:
        e.prefetch(source, e.mul(place, form.item_bytes), lanes * _SUMS * form.item_bytes)
        return [add(e.add(place, part * lanes), lanes, so_far) for part, so_far in enumerate(sums)]

    zeros = [e.const(vector(F32, lanes), 0.0)] * _SUMS
    totals = e.loop(0, whole, some, zeros, step=lanes * _SUMS)
    ends = e.loop(whole, columns, lambda place, so_far: [add(place, 1, so_far)], [e.const(vector(F32, 1), 0.0)])
    return e.b.fadd(_together(e, totals), e.sum(ends[0]))


def _together(e: Emitter, totals: Sequence[Value]) -> Value:
    total = totals[0]
    for other in totals[1:]:
        total = e.b.fadd(total, other)
    return e.sum(total)
