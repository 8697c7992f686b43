"""A weight's bytes as numbers in registers."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from edgellm.kernels.codegen.emitter import F16, F32, I8, I16, I32, I64, Emitter, Value, vector


def load_floats(e: Emitter, base: Value, offset: int | Value, kind: str, lanes: int) -> Value:
    """``lanes`` numbers of a kind as float32."""
    if kind == "f32":
        return e.load(base, offset, vector(F32, lanes))
    if kind == "bf16":
        return widened_bf16(e, e.load(base, offset, vector(I16, lanes)))
    if e.isa.half:
        return e.b.fpext(e.load(base, offset, vector(F16, lanes)), vector(F32, lanes))
    return _widened_f16(e, e.load(base, offset, vector(I16, lanes)))


def load_rows(e: Emitter, bases: Sequence[Value], offset: Value, kind: str, lanes: int) -> Value:
    """``lanes`` numbers from the same place of several rows, end to end, as float32."""
    if kind == "f32" or not (kind == "bf16" or e.isa.half):
        return e.join([load_floats(e, base, offset, kind, lanes) for base in bases])
    narrow = e.join(
        [e.load(base, offset, vector(F16 if kind == "f16" else I16, lanes)) for base in bases]
    )
    return (
        widened_bf16(e, narrow)
        if kind == "bf16"
        else e.b.fpext(narrow, vector(F32, narrow.type.count))
    )


def load_float(e: Emitter, base: Value, offset: int | Value, kind: str) -> Value:
    """One number of a kind as float32."""
    return e.b.extract_element(load_floats(e, base, offset, kind, 1), ir.Constant(I32, 0))


def widened_bf16(e: Emitter, numbers: Value) -> Value:
    """bfloat16 is the upper half of a float32."""
    words = vector(I32, numbers.type.count)
    wide = e.b.shl(e.b.zext(numbers, words), e.const(words, 16))
    return e.b.bitcast(wide, vector(F32, numbers.type.count))


def _widened_f16(e: Emitter, numbers: Value) -> Value:
    """float16 by integer arithmetic: exponent and fraction move into place, and 2^112 mends the exponent's bias."""
    lanes = numbers.type.count
    words, floats = vector(I32, lanes), vector(F32, lanes)
    wide = e.b.zext(numbers, words)
    sign = e.b.shl(e.b.and_(wide, e.const(words, 0x8000)), e.const(words, 16))
    rest = e.b.shl(e.b.and_(wide, e.const(words, 0x7FFF)), e.const(words, 13))
    scaled = e.b.fmul(e.b.bitcast(rest, floats), e.const(floats, 2.0**112))
    return e.b.bitcast(e.b.or_(e.b.bitcast(scaled, words), sign), floats)


def codes(e: Emitter, base: Value, offset: Value, bits: int, count: int) -> Value:
    """``count`` codes (a multiple of 8) from byte ``offset`` on, as 32-bit integers in their order.

    Eight codes are ``bits`` bytes, read as one integer of just that width: nothing behind the row
    is touched.
    """
    if bits == 8:
        return e.b.zext(e.load(base, offset, vector(I8, count)), vector(I32, count))
    lanes = vector(I64 if bits > 4 else I32, 8)
    shifts = e.lanes(lanes.element, [bits * place for place in range(8)])
    parts = []
    for start in range(count // 8):
        packed = e.load(base, e.add(offset, start * bits), ir.IntType(8 * bits))
        word = packed if packed.type == lanes.element else e.b.zext(packed, lanes.element)
        fields = e.b.and_(e.b.lshr(e.spread(word, 8), shifts), e.const(lanes, (1 << bits) - 1))
        parts.append(fields if lanes.element == I32 else e.b.trunc(fields, vector(I32, 8)))
    return e.join(parts)
