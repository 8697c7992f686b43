"""Many tokens times a weight, in float32 or with int8 activations."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.kernels.codegen.dot import dot, signed_weights
from edgellm.kernels.codegen.emitter import F32, I8, I32, Value, vector
from edgellm.kernels.codegen.isa import Isa
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.matmul.blocks import Frame


def emit_float_matmul(isa: Isa, name: str, form: WeightFormat) -> str:
    """Arguments as ``Frame`` has them; activations are packed float32."""
    frame = Frame(isa, name, form)
    e, lanes = frame.e, isa.lanes
    floats = vector(F32, lanes)
    rows_at_once = 8 if isa.registers == 32 else 4

    def multiply(count: Value, start: Value, vectors: int) -> None:
        base = e.at(frame.activations, e.mul(e.mul(start, frame.columns), 4 * lanes))
        step = e.mul(frame.columns, 4 * lanes)

        def rows(first: Value) -> None:
            at = [
                e.at(frame.panel_at, e.mul(e.add(first, i), frame.row_bytes))
                for i in range(rows_at_once)
            ]

            def column(k: Value, *totals: Value) -> Sequence[Value]:
                inputs = [
                    e.load(base, e.add(e.mul(step, v), e.mul(k, 4 * lanes)), floats)
                    for v in range(vectors)
                ]
                results = []
                for i in range(rows_at_once):
                    weight = e.spread(e.load(at[i], e.mul(k, 4), F32, align=4), lanes)
                    results += [
                        e.fma(weight, inputs[v], totals[i * vectors + v]) for v in range(vectors)
                    ]
                return results

            totals = e.loop(
                0, frame.columns, column, [e.const(floats, 0.0)] * (rows_at_once * vectors)
            )
            store_results(frame, first, vectors, totals)

        e.loop(0, count, rows, step=rows_at_once)

    return frame.emit(
        lambda row, place, target: frame.panel.numbers(row, target, narrow=False), multiply
    )


def emit_int8_matmul(isa: Isa, name: str, form: WeightFormat) -> str:
    """Arguments as ``Frame`` has them; activations are packed words of four codes, scales and sums (groups, lanes)."""
    frame = Frame(isa, name, form)
    e, lanes = frame.e, isa.lanes
    floats, words = vector(F32, lanes), vector(I32, lanes)
    rows_at_once = 4 if isa.registers == 32 else 2
    groups = frame.panel.groups
    factors = e.at(frame.panel_at, e.mul(frame.block, frame.row_bytes))
    factor_bytes = e.mul(groups, 8)
    parts = 2 if form.bits == 4 else 1
    group_words = form.group // 4 // parts
    half = e.div(frame.columns, 8)

    def unpack(row: Value, place: Value, target: Value) -> None:
        frame.panel.bytes(row, target)

        def factor(group: Value) -> None:
            scale, bias = frame.panel.scale(row, group)
            if signed_weights(e, form.bits):
                bias = e.fma(scale, e.const(F32, 128.0), bias)
            at = e.add(e.mul(place, factor_bytes), e.mul(group, 8))
            e.store(scale, factors, at, align=4)
            e.store(bias, factors, e.add(at, 4), align=4)

        e.loop(0, groups, factor)

    def multiply(count: Value, start: Value, vectors: int) -> None:
        step = e.mul(frame.columns, lanes)
        base = e.at(frame.activations, e.mul(start, step))
        beside = e.mul(groups, 4 * lanes)
        scales, sums = (e.at(e.address(number), e.mul(start, beside)) for number in (2, 3))

        def rows(first: Value) -> None:
            at = [
                e.at(frame.panel_at, e.mul(e.add(first, i), frame.row_bytes))
                for i in range(rows_at_once)
            ]
            factor = [
                e.at(factors, e.mul(e.add(first, i), factor_bytes)) for i in range(rows_at_once)
            ]

            def group(number: Value, *totals: Value) -> Sequence[Value]:
                ints = [e.const(words, 0)] * (rows_at_once * vectors)
                for part in range(parts):
                    begin = e.add(e.mul(number, group_words), e.mul(half, part))

                    def word(k: Value, *sums_: Value) -> Sequence[Value]:
                        inputs = [
                            e.load(
                                base,
                                e.add(e.mul(step, v), e.mul(k, 4 * lanes)),
                                vector(I8, 4 * lanes),
                            )
                            for v in range(vectors)
                        ]
                        results = []
                        for i in range(rows_at_once):
                            weight = e.spread(e.load(at[i], e.mul(k, 4), I32, align=4), lanes)
                            weight = e.b.bitcast(weight, vector(I8, 4 * lanes))
                            results += [
                                dot(e, sums_[i * vectors + v], weight, inputs[v], form.bits)
                                for v in range(vectors)
                            ]
                        return results

                    ints = e.loop(begin, e.add(begin, group_words), word, ints)
                scale, total = (
                    [
                        e.load(x, e.add(e.mul(beside, v), e.mul(number, 4 * lanes)), floats)
                        for v in range(vectors)
                    ]
                    for x in (scales, sums)
                )
                results = []
                for i in range(rows_at_once):
                    by, plus = (
                        e.spread(
                            e.load(factor[i], e.add(e.mul(number, 8), 4 * place), F32, align=4),
                            lanes,
                        )
                        for place in (0, 1)
                    )
                    for v in range(vectors):
                        mixed = e.fma(plus, total[v], totals[i * vectors + v])
                        exact = e.b.sitofp(ints[i * vectors + v], floats)
                        results.append(e.fma(exact, e.b.fmul(by, scale[v]), mixed))
                return results

            totals = e.loop(0, groups, group, [e.const(floats, 0.0)] * (rows_at_once * vectors))
            store_results(frame, first, vectors, totals)

        e.loop(0, count, rows, step=rows_at_once)

    return frame.emit(unpack, multiply)


def store_results(frame: Frame, first: Value, vectors: int, totals: Sequence[Value]) -> None:
    """Sums of some rows and vectors of tokens into the block's results."""
    e = frame.e
    for number, total in enumerate(totals):
        row, part = divmod(number, vectors)
        at = e.add(e.mul(e.add(first, row), frame.result_bytes), 4 * frame.lanes * part)
        e.store(total, frame.results, at)
