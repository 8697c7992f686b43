"""Keys and values as a cache keeps them: float32, float16, or MLX's affine codes of 8 or 4 bits.

A packed row has its features in groups of 32, the last filled up with zeros; each group has a scale
and a bias in float16, and a number is ``scale * code + bias``.
"""

from __future__ import annotations

from edgellm.kernels.codegen.abi import KV_GROUP
from edgellm.kernels.codegen.emitter import F16, F32, I8, I16, I32, Emitter, Value, vector
from edgellm.kernels.codegen.exp import ROUNDER
from edgellm.kernels.codegen.unpack import codes, load_float, load_floats

BITS = {"q8": 8, "q4": 4}


def padded(e: Emitter, width: Value) -> Value:
    """Features of a packed row."""
    return e.mul(e.ceil_div(width, KV_GROUP), KV_GROUP)


def unpack_rows(
    e: Emitter,
    kind: str,
    *,
    places: tuple[Value, Value, Value],
    heads: tuple[Value, Value],
    part: tuple[Value, Value],
    width: Value,
    target: Value,
) -> None:
    """Write rows ``part`` of one head in float32, each as long as a packed one.

    Args:
        e: the kernel.
        kept: ``f16``, ``q8`` or ``q4``.
        places: addresses of numbers or codes, of scales, and of biases.
        heads: the head's number, and bytes from head to head of the numbers or codes.
        part: the first row, and the one after the last.
        width: features of a row.
        target: where the first row goes.
    """
    (head, head_bytes), (begin, end) = heads, part
    wide = padded(e, width)
    first = e.at(places[0], e.mul(head, head_bytes))

    def plain(row: Value) -> None:
        source, goal = (
            e.at(first, e.mul(row, e.mul(width, 2))),
            e.at(target, e.mul(e.sub(row, begin), e.mul(wide, 4))),
        )

        def some(at: Value, lanes: int) -> None:
            e.store(load_floats(e, source, e.mul(at, 2), "f16", lanes), goal, e.mul(at, 4))

        e.sweep(width, some)

    if kind == "f16":
        e.loop(begin, end, plain)
        return
    bits, lanes = BITS[kind], min(KV_GROUP, max(8, e.isa.lanes))
    groups, floats = e.div(wide, KV_GROUP), vector(F32, lanes)
    tables = [e.at(place, e.div(e.mul(head, head_bytes), 2 * bits)) for place in places[1:]]

    def packed(row: Value) -> None:
        number = e.mul(row, groups)

        def group(at: Value) -> None:
            scale, bias = (
                load_float(e, table, e.mul(e.add(number, at), 2), "f16") for table in tables
            )
            source = e.at(first, e.mul(e.add(number, at), KV_GROUP * bits // 8))
            goal = e.at(target, e.mul(e.add(e.mul(e.sub(row, begin), groups), at), 4 * KV_GROUP))
            for start in range(0, KV_GROUP, lanes):
                found = e.b.uitofp(
                    codes(e, source, e.index(start * bits // 8), bits, lanes), floats
                )
                e.store(
                    e.fma(found, e.spread(scale, lanes), e.spread(bias, lanes)), goal, 4 * start
                )

        e.loop(0, groups, group)

    e.loop(begin, end, packed)


def pack_row(
    e: Emitter,
    kind: str,
    *,
    source: Value,
    places: tuple[Value, Value, Value],
    row: tuple[Value, Value],
    width: Value,
) -> None:
    """Keep one row of float32.

    Args:
        e: the kernel.
        kept: ``f16``, ``q8`` or ``q4``.
        source: the row.
        places: addresses of numbers or codes, of scales, and of biases.
        row: the bytes from the beginning of numbers or codes to the row's head, and the row's
            number in it.
        width: features of a row.
    """
    head_bytes, number = row
    if kind == "f16":
        goal = e.at(places[0], e.add(head_bytes, e.mul(number, e.mul(width, 2))))

        def some(at: Value, lanes: int) -> None:
            e.store(
                narrowed(e, e.load(source, e.mul(at, 4), vector(F32, lanes))), goal, e.mul(at, 2)
            )

        e.sweep(width, some)
        return
    bits = BITS[kind]
    groups = e.ceil_div(width, KV_GROUP)
    row_ = e.mul(number, groups)
    begin = e.at(places[0], head_bytes)
    tables = [e.at(place, e.div(head_bytes, 2 * bits)) for place in places[1:]]

    def copy(at: Value, lanes: int) -> None:
        e.store(e.load(source, e.mul(at, 4), vector(F32, lanes)), e.scratch, e.mul(at, 4))

    e.sweep(width, copy)
    zero = e.const(F32, 0.0)
    e.loop(width, padded(e, width), lambda at: e.store(zero, e.scratch, e.mul(at, 4)))

    def group(at: Value) -> None:
        place = e.add(row_, at)
        numbers = e.load(e.scratch, e.mul(at, 4 * KV_GROUP), vector(F32, KV_GROUP))
        low, high = (_extreme(e, name, numbers) for name in ("fmin", "fmax"))
        # Scale and bias are rounded first, so that codes fit what is kept.
        bias = _rounded(e, low, tables[1], place)
        scale = _rounded(
            e, e.b.fdiv(e.b.fsub(high, low), e.const(F32, float((1 << bits) - 1))), tables[0], place
        )
        factor = e.b.select(
            e.b.fcmp_ordered(">", scale, zero), e.b.fdiv(e.const(F32, 1.0), scale), zero
        )
        found = e.b.fmul(e.b.fsub(numbers, e.spread(bias, KV_GROUP)), e.spread(factor, KV_GROUP))
        most, rounder = (
            e.const(vector(F32, KV_GROUP), value) for value in (float((1 << bits) - 1), ROUNDER)
        )
        found = e.binary(
            "minnum", e.binary("maxnum", found, e.const(vector(F32, KV_GROUP), 0.0)), most
        )
        found = e.b.fsub(e.b.fadd(found, rounder), rounder)
        _store_codes(
            e,
            e.b.fptosi(found, vector(I32, KV_GROUP)),
            bits,
            e.at(begin, e.mul(place, KV_GROUP * bits // 8)),
        )

    e.loop(0, groups, group)


def narrowed(e: Emitter, numbers: Value) -> Value:
    """float32 lanes as float16, to the nearest."""
    lanes = numbers.type.count
    if e.isa.half:
        return e.b.fptrunc(numbers, vector(F16, lanes))
    words, floats, halves = vector(I32, lanes), vector(F32, lanes), vector(I16, lanes)
    word = e.b.bitcast(numbers, words)
    sign = e.b.lshr(e.b.and_(word, e.const(words, 0x80000000)), e.const(words, 16))
    rest = e.b.and_(word, e.const(words, 0x7FFFFFFF))
    # Beside 0.5 a float32's last digit is float16's smallest number, so adding 0.5 rounds those
    # that have no exponent left.
    small = e.b.fadd(e.b.bitcast(rest, floats), e.const(floats, 0.5))
    small = e.b.sub(e.b.bitcast(small, words), e.const(words, 0x3F000000))
    odd = e.b.and_(e.b.lshr(rest, e.const(words, 13)), e.const(words, 1))
    usual = e.b.sub(
        e.b.add(e.b.add(rest, odd), e.const(words, 0xFFF)), e.const(words, (127 - 15) << 23)
    )
    usual = e.b.lshr(usual, e.const(words, 13))
    half = e.b.select(e.b.icmp_unsigned("<", rest, e.const(words, 113 << 23)), small, usual)
    half = e.b.select(
        e.b.icmp_unsigned("<", rest, e.const(words, 0x477FF000)), half, e.const(words, 0x7C00)
    )
    return e.b.trunc(e.b.or_(half, sign), halves)


def _rounded(e: Emitter, number: Value, table: Value, place: Value) -> Value:
    """A number as float16 leaves it, which is what is kept at a place of a table."""
    e.store(narrowed(e, e.spread(number, 1)), table, e.mul(place, 2))
    return load_float(e, table, e.mul(place, 2), "f16")


def _extreme(e: Emitter, name: str, numbers: Value) -> Value:
    return e.call(
        f"llvm.vector.reduce.{name}.v{numbers.type.count}f32", F32, [numbers], fastmath=("nnan",)
    )


def _store_codes(e: Emitter, found: Value, bits: int, target: Value) -> None:
    small = e.b.trunc(found, vector(I8, KV_GROUP))
    if bits == 4:
        even, odd = (e.shuffle(small, range(start, KV_GROUP, 2)) for start in (0, 1))
        small = e.b.or_(even, e.b.shl(odd, e.const(vector(I8, KV_GROUP // 2), 4)))
    e.store(small, target, 0)
