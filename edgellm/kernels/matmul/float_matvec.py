"""Few tokens times a weight of any form, in float32: what every machine has."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.emitter import F32, Emitter, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.schedule import next_items
from edgellm.kernels.codegen.unpack import codes, load_float, load_floats
from edgellm.kernels.codegen.weight_format import WeightFormat

_STRIDE = 32
"""Codes that are unpacked in one round; every group is a multiple of it."""

_SUMS = 4
"""Sums of plain numbers that are kept side by side, since each addition waits for the one before."""


Row = tuple[Value, ...]
"""Addresses of a row: its codes or numbers; of codes also the scales and the biases."""


def emit_float_matvec(isa: Isa, name: str, form: WeightFormat) -> str:
    """out[t] (+)= weight . x[t].

    Arguments: 1 x (L, K) float32; 4 weight, 5 scales, 6 biases, 7 rows, 8 columns, 9 out, 10 bytes
        from one token's results to the next's, 11 whether to add to what is there, 12 rows that a
        thread takes at once.
    """
    return _emit(isa, name, form, 1, rows_at_once=1 if form.dense else isa.registers // 8)


def emit_float_few(isa: Isa, name: str, form: WeightFormat) -> str:
    """The same for several tokens: a weight becomes numbers once for up to eight of them. Each gets what it would get alone."""
    at_once = isa.registers // 8
    if form.dense:
        return _emit(isa, name, form, at_once, rows_at_once=1)
    return _emit(isa, name, form, 2 * at_once, rows_at_once=isa.registers // 16)


def _emit(
    isa: Isa, name: str, form: WeightFormat, tokens_at_once: int, *, rows_at_once: int
) -> str:
    """Several rows at once have sums that need not wait for each other, where one token alone has too few."""
    e = Emitter(isa, name)
    x, weight, scales, biases = (e.address(number) for number in (1, 4, 5, 6))
    rows, columns, out = e.argument(7), e.argument(8), e.address(9)
    stride, adds, taken = e.argument(10), e.argument(11), e.argument(12)
    unit = 8 * form.item_bytes if form.dense else form.bits
    row_bytes = e.b.lshr(e.mul(columns, unit), e.index(3))
    groups = e.index(0) if form.dense else e.div(columns, form.group)

    def some(row: Value, count_of_rows: int, token: Value, count: int) -> None:
        inputs = [e.at(x, e.mul(e.add(token, t), e.mul(columns, 4))) for t in range(count)]
        members = [e.add(row, i) for i in range(count_of_rows)]
        sources = [e.at(weight, e.mul(member, row_bytes)) for member in members]
        if form.dense:
            totals = [_plain(e, form, source, inputs, columns) for source in sources]
        else:
            starts = [e.mul(e.mul(member, groups), form.item_bytes) for member in members]
            whole = [
                (source, e.at(scales, at), e.at(biases, at))
                for source, at in zip(sources, starts, strict=True)
            ]
            totals = _coded(e, form, whole, inputs, groups)
        for member, own in zip(members, totals, strict=True):
            for t, total in enumerate(own):
                place = e.add(e.mul(e.add(token, t), stride), e.mul(member, 4))
                there = e.b.select(
                    e.less(0, adds), e.load(out, place, F32, align=4), e.const(F32, 0.0)
                )
                e.store(e.b.fadd(total, there), out, place, align=4)

    def every(row: Value, count_of_rows: int) -> None:
        begin, count = e.index(0), tokens_at_once
        while count:
            end = e.add(begin, e.mul(e.div(e.sub(e.tokens, begin), count), count))
            # more sums do not fit the registers
            together = count_of_rows if count <= isa.registers // 8 else 1

            def tokens(token: Value, count: int = count, together: int = together) -> None:
                for first in range(0, count_of_rows, together):
                    some(e.add(row, first), together, token, count)

            e.loop(begin, end, tokens, step=count)
            begin, count = end, count // 2

    def item(number: Value) -> None:
        first = e.mul(number, taken)
        stop = e.min(e.add(first, taken), rows)
        whole = e.add(first, e.mul(e.div(e.sub(stop, first), rows_at_once), rows_at_once))
        e.loop(first, whole, lambda row: every(row, rows_at_once), step=rows_at_once)
        if rows_at_once > 1:
            e.loop(whole, stop, lambda row: every(row, 1))

    next_items(e, e.ceil_div(rows, taken), item)
    return e.finish()


def _coded(
    e: Emitter, form: WeightFormat, rows: Sequence[Row], inputs: Sequence[Value], groups: Value
) -> list[list[Value]]:
    """The products of rows of codes, with their scales and biases, and each token's numbers: a list of these a row."""
    lanes = max(8, e.isa.lanes)
    floats, parts = vector(F32, lanes), _STRIDE // lanes

    def group(number: Value, *totals: Value) -> Sequence[Value]:
        at = e.mul(number, form.item_bytes)
        factors = [
            [e.spread(load_float(e, x, at, form.kind), lanes) for x in row[1:]] for row in rows
        ]

        def some(place: Value, *sums: Value) -> Sequence[Value]:
            first = e.add(e.mul(number, form.group), place)
            begin, so_far, results = e.b.lshr(e.mul(first, form.bits), e.index(3)), iter(sums), []
            for (source, *_), (scale, bias) in zip(rows, factors, strict=True):
                found = codes(e, source, begin, form.bits, _STRIDE)
                for part in range(parts):
                    weights = e.fma(
                        e.b.uitofp(e.part(found, part * lanes, lanes), floats), scale, bias
                    )
                    for own in inputs:
                        there = e.load(own, e.mul(e.add(first, part * lanes), 4), floats)
                        results.append(e.fma(weights, there, next(so_far)))
            return results

        return e.loop(0, form.group, some, totals, step=_STRIDE)

    count = parts * len(inputs)
    totals = e.loop(0, groups, group, [e.const(floats, 0.0)] * (count * len(rows)))
    by_row = [totals[start : start + count] for start in range(0, len(totals), count)]
    return [[_together(e, own[t :: len(inputs)]) for t in range(len(inputs))] for own in by_row]


def _plain(
    e: Emitter, form: WeightFormat, source: Value, inputs: Sequence[Value], columns: Value
) -> list[Value]:
    """The products of a row of plain numbers and each token's."""
    lanes = e.isa.lanes
    whole = e.mul(e.div(columns, lanes * _SUMS), lanes * _SUMS)

    def add(place: Value, count: int, sums: Sequence[Value]) -> list[Value]:
        numbers = load_floats(e, source, e.mul(place, form.item_bytes), form.kind, count)
        return [
            e.fma(numbers, e.load(own, e.mul(place, 4), vector(F32, count)), so_far)
            for own, so_far in zip(inputs, sums, strict=True)
        ]

    def some(place: Value, *sums: Value) -> Sequence[Value]:
        e.prefetch(source, e.mul(place, form.item_bytes), lanes * _SUMS * form.item_bytes)
        parts = (sums[start : start + len(inputs)] for start in range(0, len(sums), len(inputs)))
        return [
            value
            for part, own in enumerate(parts)
            for value in add(e.add(place, part * lanes), lanes, own)
        ]

    zeros = [e.const(vector(F32, lanes), 0.0)] * (_SUMS * len(inputs))
    totals = e.loop(0, whole, some, zeros, step=lanes * _SUMS)
    zeros = [e.const(vector(F32, 1), 0.0)] * len(inputs)
    ends = e.loop(whole, columns, lambda place, *sums: add(place, 1, sums), zeros)
    return [
        e.b.fadd(_together(e, totals[t :: len(inputs)]), e.sum(end)) for t, end in enumerate(ends)
    ]


def _together(e: Emitter, totals: Sequence[Value]) -> Value:
    total = totals[0]
    for other in totals[1:]:
        total = e.b.fadd(total, other)
    return e.sum(total)
